//! Programs that decide about devices in the unified cgroup tree, which has no files for that.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of other owners, as systemd, stay in force beside ours: access takes the word of all.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// One program takes the place of another in one step (Linux 5.6).
const BPF_F_REPLACE: u32 = 1 << 2;

/// The name by which our programs are known among those of others; 15 letters at most.
const NAME: &[u8; 16] = b"tripod_devices\0\0";

/// The kernel takes no more programs than this on one cgroup.
const MAX_PROGRAMS: usize = 64;

/// One instruction, as in `struct bpf_insn` (linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Offset of a jump, in instructions, or of a memory access, in bytes.
    pub offset: i16,
    /// Immediate value.
    pub immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[repr(C)]
struct GetFd {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`; the kernel fills as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Loads a program over `struct bpf_cgroup_dev_ctx`; the kernel verifies it.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: *NAME,
        ..Load::default()
    };
    // SAFETY: the attributes are those of this command, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, std::mem::size_of::<Load>()) };
    owned(fd)
}

/// Puts a program in force for a cgroup of the unified tree and all below; it lives as long as the cgroup. It takes the
/// place of the one that was put there before, so that there is no moment without rules and never two of ours.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let cgroup = cgroup.as_fd();
    let mut before = None;
    for id in device_programs(cgroup)? {
        let Some(found) = open(id)? else { continue };
        if name(&found)? == *NAME {
            before = Some(found);
        }
    }
    let mut attributes = Attach {
        target_fd: raw(cgroup)?,
        attach_bpf_fd: raw(program.as_fd())?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(before) = &before {
        attributes.attach_flags |= BPF_F_REPLACE;
        attributes.replace_bpf_fd = raw(before.as_fd())?;
    }
    // SAFETY: the attributes are those of this command and outlive the call; all descriptors are open.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, std::mem::size_of::<Attach>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The IDs of all programs that decide about devices of this very cgroup, whoever put them there.
pub fn device_programs(cgroup: impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_fd: raw(cgroup.as_fd())?,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
    };
    // SAFETY: the attributes are those of this command, and the kernel writes as many IDs as are said to have room.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attributes, std::mem::size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// A program by its ID; `None` if it is gone.
fn open(id: u32) -> io::Result<Option<OwnedFd>> {
    let attributes = GetFd { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: the attributes are those of this command and outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const attributes, std::mem::size_of::<GetFd>())
    };
    match owned(fd) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        result => result.map(Some),
    }
}

fn name(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = Info::default();
    let attributes = GetInfo {
        bpf_fd: raw(program.as_fd())?,
        info_len: std::mem::size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the attributes are those of this command, and the kernel writes no more than the length that they tell.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attributes, std::mem::size_of::<GetInfo>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.name) }
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// The descriptor that a call of bpf(2) returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
