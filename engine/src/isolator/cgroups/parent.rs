//! The cgroup parent of a pod, as kubelet names it: a path for driver `cgroupfs`, a slice for driver `systemd`.

use std::path::PathBuf;

use super::{CgroupDriver, CgroupError, systemd};

/// The path of a pod's parent below the roots of the trees. One of the other driver's kind is refused: kubelet and
/// tripod would make two different cgroups of it.
pub fn parent(driver: CgroupDriver, parent: Option<&str>) -> Result<Option<PathBuf>, CgroupError> {
    let Some(parent) = parent.filter(|parent| !parent.is_empty()) else { return Ok(None) };
    let is_slice = parent.trim_end_matches('/').ends_with(".slice");
    match driver {
        CgroupDriver::Cgroupfs if is_slice => invalid(format!(
            "the cgroup parent {parent:?} is a slice of systemd, and tripod's cgroup driver is cgroupfs; set \
             cgroup.driver to \"systemd\", or kubelet's cgroupDriver to cgroupfs"
        )),
        CgroupDriver::Cgroupfs => path(parent).map(Some),
        CgroupDriver::Systemd if !is_slice => invalid(format!(
            "the cgroup parent {parent:?} is no slice, and tripod's cgroup driver is systemd; set cgroup.driver to \
             \"cgroupfs\", or kubelet's cgroupDriver to systemd"
        )),
        CgroupDriver::Systemd => slice(parent).map(Some),
    }
}

fn path(parent: &str) -> Result<PathBuf, CgroupError> {
    let below = parent.strip_prefix('/').unwrap_or_default().trim_end_matches('/');
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\n']);
    if below.is_empty() || !below.split('/').all(good) {
        let problem = "is not an absolute path without `.` and `..`";
        return invalid(format!("the cgroup parent {parent:?} {problem}"));
    }
    Ok(below.into())
}

/// Kubelet names a slice by its path, others by its name alone; the name says where it is.
fn slice(parent: &str) -> Result<PathBuf, CgroupError> {
    let given = parent.trim_matches('/');
    let path = systemd::slice(given.rsplit('/').next().unwrap_or_default())?;
    if given.contains('/') && path.as_os_str() != given {
        return invalid(format!("the slice of the cgroup parent {parent:?} lies at {}", path.display()));
    }
    Ok(path)
}

fn invalid<T>(message: String) -> Result<T, CgroupError> {
    Err(CgroupError::Invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(driver: CgroupDriver, name: &str) -> Option<String> {
        parent(driver, Some(name)).ok().flatten().map(|path| path.display().to_string())
    }

    #[test]
    fn paths_for_cgroupfs() {
        let found = |name: &str| found(CgroupDriver::Cgroupfs, name);
        assert_eq!(found("/kubepods/burstable/pod1/").as_deref(), Some("kubepods/burstable/pod1"));
        for bad in ["relative", "/", "/a/../b", "/a//b", "kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"] {
            assert_eq!(found(bad), None, "{bad}");
        }
        assert_eq!(parent(CgroupDriver::Cgroupfs, Some("")).unwrap(), None);
        assert_eq!(parent(CgroupDriver::Systemd, None).unwrap(), None);
    }

    #[test]
    fn slices_for_systemd() {
        let found = |name: &str| found(CgroupDriver::Systemd, name);
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(found("kubepods-burstable-pod1.slice").as_deref(), Some(path));
        let absolute = format!("/{path}");
        assert_eq!(found(&absolute).as_deref(), Some(path));
        for bad in ["/kubepods/pod1", "pod1", "/a.slice/b.slice", "a--b.slice", "/../a.slice"] {
            assert_eq!(found(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_wrong_kind_is_refused_with_the_setting_to_change() {
        for (driver, name) in [(CgroupDriver::Cgroupfs, "a.slice"), (CgroupDriver::Systemd, "/a")] {
            let error = parent(driver, Some(name)).unwrap_err().to_string();
            assert!(error.contains("cgroup.driver") && error.contains("cgroupDriver"), "{error}");
        }
    }
}
