//! User, groups, capabilities: from the shim's, which are root's, to the plan's.

use rustix::{
    fs::{Gid, Uid},
    thread::{set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tripod_shim_protocol::{Capability, Failure, ProcessPlan};
use tripod_sys::caps::{self, Sets};

use crate::fault::Blame;

/// Becomes the plan's user with the plan's rights. The bounding set goes first, as dropping from it takes a capability
/// itself; the others are set last, as changing the user clears them.
pub(super) fn take(process: &ProcessPlan) -> Result<(), Failure> {
    let plan = &process.capabilities;
    let credentials = &process.credentials;
    caps::limit_bounding(mask(&plan.bounding)).internal(|| "limit the bounding set of capabilities".into())?;
    set_keep_capabilities(true).internal(|| "keep capabilities across the change of user".into())?;

    let groups: Vec<_> = credentials.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups).plan(|| format!("set supplementary groups {:?}", credentials.groups))?;
    let gid = Gid::from_raw(credentials.gid);
    set_thread_res_gid(gid, gid, gid).plan(|| format!("become group {}", credentials.gid))?;
    let uid = Uid::from_raw(credentials.uid);
    set_thread_res_uid(uid, uid, uid).plan(|| format!("become user {}", credentials.uid))?;

    // What the shim does not hold cannot be given; the daemon knows that and has said so.
    let held = caps::get().internal(|| "read capabilities".into())?.permitted;
    let loads = filter_right(process) & held;
    let permitted = (mask(&plan.permitted) & held) | loads;
    let inheritable = mask(&plan.inheritable) & held & mask(&plan.bounding);
    let sets = Sets { effective: (mask(&plan.effective) & permitted) | loads, permitted, inheritable };
    caps::set(sets).internal(|| "set capabilities".into())?;
    caps::set_ambient(mask(&plan.ambient) & permitted & inheritable).internal(|| "set ambient capabilities".into())?;
    if process.no_new_privs {
        set_no_new_privs(true).internal(|| "set no_new_privs".into())?;
    }
    Ok(())
}

/// What loading a filter takes of a process without no_new_privs: CAP_SYS_ADMIN, kept until execve takes it away. That
/// it surely does: a program gets nothing but what is in the bounding set, inheritable or ambient. To give it up before
/// would be a system call under the filter, and a profile need not allow what only we do.
fn filter_right(process: &ProcessPlan) -> u64 {
    const SYS_ADMIN: Capability = 21;
    if process.seccomp.is_some() && !process.no_new_privs { mask(&[SYS_ADMIN]) } else { 0 }
}

fn mask(capabilities: &[Capability]) -> u64 {
    capabilities.iter().filter(|n| **n < 64).fold(0, |mask, n| mask | 1 << n)
}
