//! Owners and modes of new files, on the real file system.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_replaces_a_file_has_its_mode_and_what_is_new_is_no_more_open() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("old"), "").unwrap();
    let disk = RealDisk;
    for wanted in [0o600, 0o640, 0o666, 0o444] {
        set_mode(&at("old"), wanted);
        let path = at(&format!("new-{wanted:o}"));
        create(&disk, &path, &[&at("none"), &at("old")], &[]).unwrap();
        assert_eq!(mode(&path), wanted);
    }
    for (like, most) in [(0o600, 0o600), (0o640, 0o640), (0o666, 0o666)] {
        set_mode(&at("old"), like);
        let path = at(&format!("like-{like:o}"));
        create(&disk, &path, &[&at("none")], &[&at("none"), &at("old")]).unwrap();
        assert_eq!(mode(&path) & !most, 0);
        assert_eq!(mode(&path) & 0o600, 0o600);
        assert!(create(&disk, &path, &[], &[]).is_err(), "it exists");
    }
    // A directory or a link in the place of a file is no model.
    std::os::unix::fs::symlink(at("old"), at("link")).unwrap();
    set_mode(&at("old"), 0o640);
    create(&disk, &at("new"), &[dir.path(), &at("link"), &at("old")], &[]).unwrap();
    assert_eq!(mode(&at("new")), 0o640);
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    if chown(dir.path(), Some(12_345), Some(54_321)).is_err() {
        eprintln!("NOT EXERCISED: only root can give a file away");
        return;
    }
    let disk = RealDisk;
    create(&disk, &at("new"), &[], &[]).unwrap();
    disk.create_dir(&at("below")).unwrap();
    open_lock(&at("lock"));
    for name in ["new", "below", "lock"] {
        let found = fs::metadata(at(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (12_345, 54_321), "{name}");
    }
    // The owner of what is replaced counts, not that of the directory.
    fs::write(at("old"), "").unwrap();
    chown(at("old"), Some(99), Some(98)).unwrap();
    create(&disk, &at("newer"), &[&at("old")], &[]).unwrap();
    let found = fs::metadata(at("newer")).unwrap();
    assert_eq!((found.uid(), found.gid()), (99, 98));
}

fn open_lock(path: &Path) {
    drop(crate::disk::open_lock(path, true).unwrap());
}
