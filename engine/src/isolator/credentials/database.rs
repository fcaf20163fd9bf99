//! The image's `/etc/passwd` and `/etc/group`: hostile input, read through handles that cannot leave the root
//! filesystem, parsed as glibc's `files` service does: comments and broken lines count for nothing, the first match
//! wins.

use std::{
    cell::OnceCell,
    fs::File,
    io::{ErrorKind, Read},
    os::fd::BorrowedFd,
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use tripod_sys::inroot;

use super::invalid;
use crate::{Error, Kind, Result};

/// The longest file that is read. Eight thousand users make half a megabyte.
const MAX_FILE: u64 = 8 << 20;

/// A line of /etc/passwd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Name; empty if the user is a mere number.
    pub name: String,
    /// User ID.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// Both files; each is read at most once, and only if it is asked for.
#[derive(Debug)]
pub struct Database<'a> {
    root: BorrowedFd<'a>,
    passwd: OnceCell<String>,
    group: OnceCell<String>,
}

impl<'a> Database<'a> {
    /// The files below `root`.
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, passwd: OnceCell::new(), group: OnceCell::new() }
    }

    /// The first user that fits.
    pub fn user(&self, fits: impl Fn(&User) -> bool) -> Result<Option<User>> {
        Ok(lines(self.file(&self.passwd, "/etc/passwd")?).filter_map(parse_user).find(fits))
    }

    /// The ID of a group.
    pub fn group(&self, name: &str) -> Result<Option<u32>> {
        let mut groups = lines(self.file(&self.group, "/etc/group")?).filter_map(parse_group);
        Ok(groups.find(|(group, ..)| *group == name).map(|(_, gid, _)| gid))
    }

    /// The groups that list a user as a member.
    pub fn groups_of(&self, user: &str) -> Result<Vec<u32>> {
        let groups = lines(self.file(&self.group, "/etc/group")?).filter_map(parse_group);
        let has = |members: &str| members.split(',').any(|member| member.trim() == user);
        Ok(groups.filter(|(.., members)| has(members)).map(|(_, gid, _)| gid).collect())
    }

    fn file<'b>(&self, cell: &'b OnceCell<String>, path: &str) -> Result<&'b str> {
        if cell.get().is_none() {
            let text = read(self.root, Path::new(path))?;
            return Ok(cell.get_or_init(|| text));
        }
        Ok(cell.get().map_or("", String::as_str))
    }
}

/// A file of the image as text; empty if it is not there.
fn read(root: BorrowedFd<'_>, path: &Path) -> Result<String> {
    let shown = path.display();
    let failed = |e| Error::with(Kind::Internal, format!("reading the image's {shown}"), e);
    // A look before opening: to open a FIFO or a device can block, or do things.
    let handle = match inroot::handle(root, path) {
        Ok(handle) => handle,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(String::new()),
        Err(e) => return Err(invalid(format!("the image's {shown} cannot be reached: {e}"))),
    };
    let stat = fstat(&handle).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid(format!("the image's {shown} is not a file")));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(inroot::open(root, path, flags, Mode::empty()).map_err(failed)?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid(format!("the image's {shown} is longer than {} MiB", MAX_FILE >> 20)));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines that are neither empty nor comments, nor references to NIS (`+` and `-`).
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']))
}

/// `name:password:uid:gid:comment:home:shell`; what stands after the group may be missing.
fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = super::number(fields.nth(1)?).ok()??;
    let gid = super::number(fields.next()?).ok()??;
    let home = fields.nth(1).unwrap_or_default();
    Some(User { name: name.to_owned(), uid, gid, home: home.to_owned() })
}

/// `name:password:gid:member,member`, as name, ID and members.
fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = super::number(fields.nth(1)?).ok()??;
    Some((name, gid, fields.next().unwrap_or_default()))
}
