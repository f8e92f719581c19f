//! A directory that is held open: whatever its path leads to later, files are looked for in this one and no other.
//!
//! Files are new or replaced whole: written under a random name that did not exist, brought to the disk, renamed. What is
//! new is its owner's alone; what is replaced keeps its mode and its group. Nothing that is written follows a link.
//! Errors are the system's unless a function says otherwise.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, fchmod, fchown, fstat, linkat, mkdirat,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::Result;

/// In a store's directory: the whole store at one moment.
pub(crate) const SNAPSHOT: &str = "snapshot.safetensors";
/// In a store's directory: where every operation since is.
pub(crate) const JOURNAL: &str = "journal";

/// A directory that is held open. Names are relative to it.
pub(crate) struct Folder {
    handle: File,
    path: PathBuf,
}

/// What the system says of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    /// Which file it is, whatever it is called: the device and the number there.
    pub(crate) identity: (u64, u64),
    pub(crate) size: u64,
    /// How many names it has.
    pub(crate) names: u64,
    pub(crate) kind: Kind,
    /// The mode and the group.
    access: (u32, u32),
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, or what else there is.
    Other,
}

impl Folder {
    /// Opens a directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        let mut options = fs::OpenOptions::new();
        let handle = options.read(true).custom_flags(flags).open(&path)?;
        Ok(Self { handle, path })
    }

    /// Opens a directory, made if it is not there, with those above it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        ignore_existing(fs::DirBuilder::new().mode(0o700).create(path))?;
        Self::open(path)
    }

    /// The directory that a file is in, and the file's name there.
    /// An error, too, if the path does not end in a name.
    pub(crate) fn of(path: &Path) -> io::Result<(Self, &OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok((Self::open(parent)?, name))
    }

    /// Where it was when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory within, if there is none.
    /// An error, too, if it is something else: a link would lead elsewhere.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<()> {
        let made = mkdirat(&self.handle, name, Mode::RWXU);
        ignore_existing(made.map_err(io::Error::from))?;
        match self.status(name)? {
            Some(status) if status.kind != Kind::Folder => Err(io::Error::other(format!(
                "{name} is not a directory, or is a link to one: the store would be in two places"
            ))),
            _ => Ok(()),
        }
    }

    /// A file to read.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.file(name.as_ref(), OFlags::RDONLY)
    }

    /// A file that is there, to read and to write; not through a link.
    pub(crate) fn write(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.file(name.as_ref(), OFlags::RDWR | OFlags::NOFOLLOW)
    }

    /// A file to read and to write, made if it is not there; not through a link.
    pub(crate) fn write_or_make(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CREATE;
        self.file(name.as_ref(), flags)
    }

    /// A new file to read and to write, as accessible as another. There must be nothing of that name.
    pub(crate) fn make(
        &self,
        name: impl AsRef<Path>,
        like: Option<FileStatus>,
    ) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.file(name.as_ref(), flags)?;
        if let Some(like) = like {
            allow(&file, like.access)?;
        }
        Ok(file)
    }

    fn file(&self, name: &Path, flags: OFlags) -> io::Result<File> {
        let mode = Mode::RUSR | Mode::WUSR;
        match openat(&self.handle, name, flags | OFlags::CLOEXEC, mode) {
            Err(Errno::LOOP) if flags != OFlags::RDONLY => Err(io::Error::other(format!(
                "{} is a link, which what is written does not follow",
                name.display()
            ))),
            opened => Ok(opened?.into()),
        }
    }

    /// Puts a file in the place of another, or where there was none, whole or not at all. It may be read before, but is
    /// sure to be there after a loss of power only after [`Folder::sync`].
    /// An error of `write` leaves all as it was.
    pub(crate) fn replace(
        &self,
        name: impl AsRef<Path>,
        write: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        let name = name.as_ref();
        let old = self.status(name)?.filter(|old| old.kind == Kind::File);
        let (mut file, scratch) = self.scratch(name, old)?;
        let replaced = write(&mut file)
            .and_then(|()| Ok(file.sync_all()?))
            .and_then(|()| Ok(self.rename(&scratch, name)?));
        if replaced.is_err() {
            let _ = self.remove(&scratch);
        }
        replaced
    }

    /// A new file beside another, under an unpredictable name; and that name.
    fn scratch(&self, name: &Path, like: Option<FileStatus>) -> io::Result<(File, PathBuf)> {
        loop {
            let mut scratch = name.as_os_str().to_owned();
            scratch.push(format!(".{:016x}.tmp", RandomState::new().hash_one(())));
            let scratch = PathBuf::from(scratch);
            match self.make(&scratch, like) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Ok((file?, scratch)),
            }
        }
    }

    /// Keeps a file under a second name, also when the first is removed or leads to another file.
    pub(crate) fn link_or_copy(&self, name: &str, second: &str) -> Result<()> {
        match linkat(&self.handle, name, &self.handle, second, AtFlags::empty()) {
            // Some file systems know of no second names.
            Err(error) if error != Errno::EXIST => {
                let mut whole = self.read(name)?;
                self.replace(second, |copy| {
                    io::copy(&mut whole, copy)?;
                    Ok(())
                })
            }
            linked => Ok(linked.map_err(io::Error::from)?),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }

    /// Removes a file, or the link of that name.
    pub(crate) fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(unlinkat(&self.handle, name.as_ref(), AtFlags::empty())?)
    }

    /// What is known of a name, if there is something of that name; links are not followed.
    pub(crate) fn status(&self, name: impl AsRef<Path>) -> io::Result<Option<FileStatus>> {
        match statat(&self.handle, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => Ok(Some(FileStatus::from(found?))),
        }
    }

    /// The names in a directory within, or in this one (`.`), sorted.
    pub(crate) fn names(&self, within: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.within(within)?)? {
            // Ours are all of them plain.
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes sure that what was made, renamed or removed in a directory within, or in this one (`.`), is so after a loss
    /// of power.
    pub(crate) fn sync(&self, within: &str) -> io::Result<()> {
        self.within(within)?.sync_all()
    }

    /// A directory within.
    pub(crate) fn within(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::empty())?.into())
    }
}

/// Whether a file was never finished, by its name.
pub(crate) fn is_scratch(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "tmp")
}

/// Accepts a directory that is there already.
fn ignore_existing(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Gives a new file the mode and the group of another; less to the group if it cannot be that.
fn allow(file: &File, (mode, group): (u32, u32)) -> io::Result<()> {
    let (own, its) = FileStatus::of(file)?.access;
    let group_is_kept = its == group || fchown(file, None, Some(Gid::from_raw(group))).is_ok();
    let mode = if group_is_kept { mode } else { mode & !0o070 };
    if mode != own {
        fchmod(file, Mode::from_raw_mode(mode as _))?;
    }
    Ok(())
}

impl FileStatus {
    /// Of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(fstat(file)?))
    }
}

impl From<Stat> for FileStatus {
    // The types of these numbers differ from system to system.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    fn from(found: Stat) -> Self {
        Self {
            identity: (found.st_dev as u64, found.st_ino as u64),
            size: found.st_size as u64,
            names: found.st_nlink as u64,
            kind: match FileType::from_raw_mode(found.st_mode as _) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Folder,
                _ => Kind::Other,
            },
            access: (found.st_mode as u32 & 0o777, found.st_gid as u32),
        }
    }
}
