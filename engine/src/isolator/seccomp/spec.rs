//! A filter in the words of the OCI runtime specification: the way back from what profiles are read into.

use serde_json::{Value, json};

use super::{
    arch::Arch,
    rules::{Action, Condition, Op, Rule, Rules},
};

/// The specification's name of the action, and its errno.
type Named = (&'static str, Option<u16>);

/// The `linux.seccomp` of a specification.
pub(super) fn of(rules: &Rules) -> Value {
    let (action, errno) = action(rules.default);
    let mut arches = vec![Arch::NATIVE];
    arches.extend(rules.arches.iter().copied().filter(|arch| *arch != Arch::NATIVE));
    let flags = [
        (rules.flags.log, "SECCOMP_FILTER_FLAG_LOG"),
        (rules.flags.spec_allow, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        (rules.flags.wait_killable, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    ];
    let mut spec = json!({
        "defaultAction": action,
        "architectures": arches.into_iter().map(name).collect::<Vec<_>>(),
        "flags": flags.into_iter().filter_map(|(on, name)| on.then_some(name)).collect::<Vec<_>>(),
        "syscalls": rules.rules.iter().map(rule).collect::<Vec<_>>(),
    });
    if let Some(errno) = errno {
        spec["defaultErrnoRet"] = errno.into();
    }
    if let Some(listener) = &rules.listener {
        spec["listenerPath"] = json!(listener.path);
        spec["listenerMetadata"] = json!(listener.metadata);
    }
    spec
}

fn rule(rule: &Rule) -> Value {
    let (action, errno) = action(rule.action);
    let mut spec = json!({
        "names": rule.names,
        "action": action,
        "args": rule.conditions.iter().map(argument).collect::<Vec<_>>(),
    });
    if let Some(errno) = errno {
        spec["errnoRet"] = errno.into();
    }
    spec
}

fn action(action: Action) -> Named {
    match action {
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::Notify => ("SCMP_ACT_NOTIFY", None),
        Action::Trace(message) => ("SCMP_ACT_TRACE", Some(message)),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Allow => ("SCMP_ACT_ALLOW", None),
    }
}

fn argument(condition: &Condition) -> Value {
    let (op, value, two) = match condition.op {
        Op::Ne => ("SCMP_CMP_NE", condition.value, 0),
        Op::Lt => ("SCMP_CMP_LT", condition.value, 0),
        Op::Le => ("SCMP_CMP_LE", condition.value, 0),
        Op::Eq => ("SCMP_CMP_EQ", condition.value, 0),
        Op::Ge => ("SCMP_CMP_GE", condition.value, 0),
        Op::Gt => ("SCMP_CMP_GT", condition.value, 0),
        // There the mask comes first.
        Op::MaskedEq(mask) => ("SCMP_CMP_MASKED_EQ", mask, condition.value),
    };
    json!({ "index": condition.index, "value": value, "valueTwo": two, "op": op })
}

fn name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "SCMP_ARCH_X86_64",
        Arch::X32 => "SCMP_ARCH_X32",
        Arch::X86 => "SCMP_ARCH_X86",
        Arch::Aarch64 => "SCMP_ARCH_AARCH64",
        Arch::Arm => "SCMP_ARCH_ARM",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::profile, *};
    use crate::isolator::seccomp::{default, profile::Situation};

    /// What is written is read as the same rules: nothing is lost on the way.
    #[test]
    fn rules_survive_the_way_there_and_back() {
        let situation = Situation { capabilities: 0, native: Arch::NATIVE, kernel: (6, 12) };
        for capabilities in [0, 1 << 21, u64::MAX] {
            let rules = default::rules(capabilities, Arch::NATIVE);
            let mut back = profile::parse(of(&rules).to_string().as_bytes(), situation).unwrap();
            back.arches.retain(|arch| *arch != Arch::NATIVE);
            let own = rules.arches.iter().copied().filter(|arch| *arch != Arch::NATIVE);
            assert_eq!(back.arches, own.collect::<Vec<_>>());
            assert_eq!((back.default, back.flags, back.rules), (rules.default, rules.flags, rules.rules));
        }
        let text = r#"{"defaultAction":"SCMP_ACT_TRACE","defaultErrnoRet":7,"architectures":["SCMP_ARCH_X86_64"],
            "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "listenerPath":"/run/x.sock","listenerMetadata":"m","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"},{"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":5,
            "args":[{"index":1,"value":7,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"},{"index":0,"value":9,"op":"SCMP_CMP_GE"}]}]}"#;
        let rules = profile::parse(text.as_bytes(), situation).unwrap();
        let back = profile::parse(of(&rules).to_string().as_bytes(), situation).unwrap();
        assert_eq!(
            (back.default, back.flags, back.rules, back.listener),
            (rules.default, rules.flags, rules.rules, rules.listener)
        );
    }
}
