//! A directory that is held open: whatever its path leads to later, files are looked for in this one and no other.
//!
//! Files are new or replaced whole: written under a random name that did not exist, brought to the disk, renamed. What is
//! new is its owner's alone; what is replaced keeps its mode and its group. Nothing that is written follows a link.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Result;

/// In a store's directory: the whole store at one moment.
pub(crate) const SNAPSHOT: &str = "snapshot.safetensors";
/// In a store's directory: where every operation since is.
pub(crate) const JOURNAL: &str = "journal";

/// A directory that is held open. Names are relative to it.
pub(crate) struct Folder {
    #[cfg(unix)]
    handle: File,
    path: PathBuf,
}

/// What the system says of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Which file it is, whatever it is called: the device and the number there.
    pub(crate) identity: (u64, u64),
    pub(crate) size: u64,
    /// How many names it has.
    pub(crate) names: u64,
    pub(crate) kind: Kind,
    /// Who may do what, and the group.
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

/// What to open a file for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenMode {
    Reading,
    /// One that is there.
    Writing,
    /// One that is there, or a new one.
    WritingOrMaking,
    /// A new one.
    Making,
}

impl Folder {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        Ok(Self {
            #[cfg(unix)]
            handle: system::directory(&path)?,
            path,
        })
    }

    /// Opens a directory, made if it is not there, with those above it.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes"))]
        let mut maker = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut maker, 0o700);
        ignore_existing(maker.create(path))?;
        Self::open(path)
    }

    /// The directory that a file is in, and the file's name there.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it, or if the path does not end in a name.
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
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it, or if it is something else: a link would lead elsewhere.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<()> {
        ignore_existing(system::make_folder(self, name))?;
        match self.facts(name)? {
            Some(facts) if facts.kind != Kind::Folder => Err(io::Error::other(format!(
                "{name} is not a directory, or is a link to one: the store would be in two places"
            ))),
            _ => Ok(()),
        }
    }

    /// A file to read.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> io::Result<File> {
        system::file(self, name.as_ref(), OpenMode::Reading)
    }

    /// A file that is there, to read and to write.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it, or if it is a link.
    pub(crate) fn write(&self, name: impl AsRef<Path>) -> io::Result<File> {
        system::file(self, name.as_ref(), OpenMode::Writing)
    }

    /// A file to read and to write, made if it is not there.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it, or if it is a link.
    pub(crate) fn write_or_make(&self, name: impl AsRef<Path>) -> io::Result<File> {
        system::file(self, name.as_ref(), OpenMode::WritingOrMaking)
    }

    /// A new file to read and to write, as accessible as another.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it, or if there is something of that name.
    pub(crate) fn make(&self, name: impl AsRef<Path>, like: Option<Facts>) -> io::Result<File> {
        let file = system::file(self, name.as_ref(), OpenMode::Making)?;
        if let Some(like) = like {
            system::allow(&file, like.access)?;
        }
        Ok(file)
    }

    /// Puts a file in the place of another, or where there was none, whole or not at all. It may be read before, but is
    /// sure to be there after a loss of power only after [`Folder::sync`].
    ///
    /// # Errors
    /// [`crate::Error::Io`] as the system gives it, and as `write`; all is as it was then.
    pub(crate) fn replace(
        &self,
        name: impl AsRef<Path>,
        write: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        let name = name.as_ref();
        let old = self.facts(name)?.filter(|old| old.kind == Kind::File);
        let (mut file, scratch) = self.scratch(name, old)?;
        let replaced = write(&mut file)
            .and_then(|()| Ok(file.sync_all()?))
            .and_then(|()| Ok(self.rename(&scratch, name)?));
        if replaced.is_err() {
            let _ = self.remove(&scratch);
        }
        replaced
    }

    /// A new file beside another, under a name that nobody can foresee; and that name.
    fn scratch(&self, name: &Path, like: Option<Facts>) -> io::Result<(File, PathBuf)> {
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

    /// Gives a file another name, in the place of what had it.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        system::rename(self, from, to)
    }

    /// Keeps a file under a second name, also when the first is removed or leads to another file.
    ///
    /// # Errors
    /// [`crate::Error::Io`] as the system gives it.
    pub(crate) fn link_or_copy(&self, name: &str, second: &str) -> Result<()> {
        match system::link(self, name, second) {
            // Some file systems know of no second names.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let mut whole = self.read(name)?;
                self.replace(second, |copy| {
                    io::copy(&mut whole, copy)?;
                    Ok(())
                })
            }
            linked => Ok(linked?),
        }
    }

    /// Removes a file, or the link of that name.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        system::remove(self, name.as_ref())
    }

    /// What is known of a name, if there is something of that name; links are not followed.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn facts(&self, name: impl AsRef<Path>) -> io::Result<Option<Facts>> {
        match system::facts(self, name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            facts => facts.map(Some),
        }
    }

    /// The names in a directory within, or in this one (`.`), sorted.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn names(&self, within: &str) -> io::Result<Vec<String>> {
        let mut names = system::names(self, within)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Makes sure that what was made, renamed or removed in a directory within, or in this one (`.`), is so after a loss
    /// of power.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn sync(&self, within: &str) -> io::Result<()> {
        system::sync(self, within)
    }

    /// A directory within, for its lock.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    #[cfg(unix)]
    pub(crate) fn within(&self, name: &str) -> io::Result<File> {
        system::within(self, name)
    }
}

/// Whether a file was never finished, by its name.
pub(crate) fn is_scratch(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "tmp")
}

/// It is no matter who made it.
fn ignore_existing(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

impl Facts {
    /// Of an open file.
    ///
    /// # Errors
    /// [`io::Error`] as the system gives it.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

#[cfg(unix)]
impl From<&fs::Metadata> for Facts {
    fn from(found: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            identity: (found.dev(), found.ino()),
            size: found.len(),
            names: found.nlink(),
            kind: match found.file_type() {
                kind if kind.is_file() => Kind::File,
                kind if kind.is_dir() => Kind::Folder,
                _ => Kind::Other,
            },
            access: (found.mode() & 0o777, found.gid()),
        }
    }
}

#[cfg(not(unix))]
impl From<&fs::Metadata> for Facts {
    fn from(found: &fs::Metadata) -> Self {
        Self {
            // Nobody is told: an open file cannot be put aside here.
            identity: (0, 0),
            size: found.len(),
            names: 1,
            kind: match found.file_type() {
                kind if kind.is_file() => Kind::File,
                kind if kind.is_dir() => Kind::Folder,
                _ => Kind::Other,
            },
            access: (0, 0),
        }
    }
}

/// Relative to the open directory.
#[cfg(unix)]
mod system {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, fchmod, fchown, linkat, mkdirat, openat,
        renameat, statat, unlinkat,
    };
    use rustix::io::Errno;

    use super::{Facts, File, Folder, Kind, OpenMode, Path, fs, io};

    pub(super) fn directory(path: &Path) -> io::Result<File> {
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)
    }

    pub(super) fn within(folder: &Folder, name: &str) -> io::Result<File> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&folder.handle, name, flags, Mode::empty())?.into())
    }

    pub(super) fn make_folder(folder: &Folder, name: &str) -> io::Result<()> {
        Ok(mkdirat(&folder.handle, name, Mode::RWXU)?)
    }

    pub(super) fn file(folder: &Folder, name: &Path, mode: OpenMode) -> io::Result<File> {
        let flags = OFlags::CLOEXEC
            | match mode {
                OpenMode::Reading => OFlags::RDONLY,
                OpenMode::Writing => OFlags::RDWR | OFlags::NOFOLLOW,
                OpenMode::WritingOrMaking => OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CREATE,
                OpenMode::Making => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
        match openat(&folder.handle, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::LOOP) if mode != OpenMode::Reading => Err(io::Error::other(format!(
                "{} is a link, which what is written does not follow",
                name.display()
            ))),
            opened => Ok(opened?.into()),
        }
    }

    /// Gives a new file the mode and the group of another; less to the group if it cannot be that.
    pub(super) fn allow(file: &File, (mode, group): (u32, u32)) -> io::Result<()> {
        let (own, its) = Facts::of(file)?.access;
        let group_is_kept = its == group || fchown(file, None, Some(Gid::from_raw(group))).is_ok();
        let mode = if group_is_kept { mode } else { mode & !0o070 };
        if mode != own {
            fchmod(file, Mode::from_raw_mode(mode as _))?;
        }
        Ok(())
    }

    pub(super) fn facts(folder: &Folder, name: &Path) -> io::Result<Facts> {
        let found = statat(&folder.handle, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // The types of these numbers differ from system to system.
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
        Ok(Facts {
            identity: (found.st_dev as u64, found.st_ino as u64),
            size: found.st_size as u64,
            names: found.st_nlink as u64,
            kind: match FileType::from_raw_mode(found.st_mode as _) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Folder,
                _ => Kind::Other,
            },
            access: (found.st_mode as u32 & 0o777, found.st_gid as u32),
        })
    }

    pub(super) fn rename(folder: &Folder, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&folder.handle, from, &folder.handle, to)?)
    }

    pub(super) fn link(folder: &Folder, name: &str, second: &str) -> io::Result<()> {
        let (here, plain) = (&folder.handle, AtFlags::empty());
        Ok(linkat(here, name, here, second, plain)?)
    }

    pub(super) fn remove(folder: &Folder, name: &Path) -> io::Result<()> {
        Ok(unlinkat(&folder.handle, name, AtFlags::empty())?)
    }

    pub(super) fn names(folder: &Folder, name: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(within(folder, name)?)? {
            // Ours are all of them plain.
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    pub(super) fn sync(folder: &Folder, name: &str) -> io::Result<()> {
        within(folder, name)?.sync_all()
    }
}

/// By absolute paths: an open file keeps its directory in place here.
#[cfg(not(unix))]
mod system {
    use super::{Facts, File, Folder, OpenMode, Path, fs, io};

    pub(super) fn make_folder(folder: &Folder, name: &str) -> io::Result<()> {
        fs::create_dir(folder.path.join(name))
    }

    pub(super) fn file(folder: &Folder, name: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Reading => {}
            OpenMode::Writing => {
                options.write(true);
            }
            OpenMode::WritingOrMaking => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::Making => {
                options.write(true).create_new(true);
            }
        }
        options.open(folder.path.join(name))
    }

    pub(super) fn allow(_: &File, _: (u32, u32)) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn facts(folder: &Folder, name: &Path) -> io::Result<Facts> {
        Ok(Facts::from(&fs::symlink_metadata(folder.path.join(name))?))
    }

    pub(super) fn rename(folder: &Folder, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(folder.path.join(from), folder.path.join(to))
    }

    pub(super) fn link(folder: &Folder, name: &str, second: &str) -> io::Result<()> {
        fs::hard_link(folder.path.join(name), folder.path.join(second))
    }

    pub(super) fn remove(folder: &Folder, name: &Path) -> io::Result<()> {
        fs::remove_file(folder.path.join(name))
    }

    pub(super) fn names(folder: &Folder, name: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder.path.join(name))? {
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    pub(super) fn sync(_: &Folder, _: &str) -> io::Result<()> {
        Ok(())
    }
}
