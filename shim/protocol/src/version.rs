//! Versions of the protocol: what a shim that is older than the daemon does not know.
//!
//! A new field comes with a default, so an older shim reads the plan and leaves the field out. That is right for what
//! makes a container better, and wrong for what keeps it in its box: such a container must not be started there.

use crate::LaunchPlan;

/// Version of this protocol; raised when a shim of the version before could misunderstand a message, or would start a
/// container without something that confines it. What is new then gets its line in [`left_out`].
///
/// * 1: the beginning.
/// * 2: seccomp filters, AppArmor profiles and SELinux labels. The report on all containers tells the version too.
pub const VERSION: u32 = 2;

/// The version of a shim that tells none.
pub(crate) fn first() -> u32 {
    1
}

/// What a shim of `version` would leave out of a container by this plan, and the version that knows it.
pub fn left_out(version: u32, plan: &LaunchPlan) -> Option<(&'static str, u32)> {
    let process = &plan.process;
    let new = [
        (process.seccomp.is_some(), "a seccomp profile", 2),
        (process.apparmor.is_some(), "an AppArmor profile", 2),
        (process.selinux.is_some() || plan.mount_label.is_some(), "SELinux labels", 2),
    ];
    new.into_iter().find(|(asked, _, since)| *asked && *since > version).map(|(_, what, since)| (what, since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeccompFilter;

    #[test]
    fn what_confines_a_container_needs_a_shim_that_knows_it() {
        let plain = LaunchPlan::default();
        assert_eq!(left_out(1, &plain), None);
        let changes: [fn(&mut LaunchPlan); 4] = [
            |plan| plan.process.seccomp = Some(SeccompFilter::default()),
            |plan| plan.process.apparmor = Some("mine".into()),
            |plan| plan.process.selinux = Some("a:b:c:s0".into()),
            |plan| plan.mount_label = Some("a:b:c:s0".into()),
        ];
        for change in changes {
            let mut plan = plain.clone();
            change(&mut plan);
            let (what, since) = left_out(1, &plan).unwrap();
            assert!(!what.is_empty() && since == 2);
            assert_eq!(left_out(VERSION, &plan), None);
            assert_eq!(left_out(VERSION + 1, &plan), None, "a newer shim knows all of before");
        }
    }
}
