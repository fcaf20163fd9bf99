//! Profiles as people write them.

use serde_json::{Value, json};

use crate::isolator::seccomp::{
    arch::Arch,
    profile::{Situation, kernel_version, parse},
    rules::{Action, Condition, Op, Rules},
};

const HERE: Situation = Situation { capabilities: 1 << 21 | 1 << 13, native: Arch::X86_64, kernel: (6, 1) };

fn read(profile: &Value) -> Result<Rules, String> {
    parse(profile.to_string().as_bytes(), HERE).map_err(|error| error.to_string())
}

fn refused(profile: &Value, words: &[&str]) {
    let error = read(profile).unwrap_err();
    assert!(words.iter().all(|word| error.contains(word)), "{error:?} does not say {words:?}");
}

/// A profile with one entry.
fn one(entry: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]})
}

#[test]
fn everything_that_the_specification_has_is_read() {
    let rules = read(&json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "m",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_NOTIFY", "args": null, "comment": "for the agent"},
            {"names": ["clone", "no_such_call"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 2_114_060_288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 5, "value": u64::MAX, "op": "SCMP_CMP_NE"},
            ]},
            {"name": "ptrace", "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
        ],
    }));
    let rules = rules.unwrap();
    assert_eq!(rules.default, Action::Errno(38));
    assert_eq!(rules.arches, [Arch::X86]);
    assert!(rules.flags.log && rules.flags.wait_killable && !rules.flags.spec_allow);
    let listener = rules.listener.unwrap();
    assert_eq!((listener.path.to_str(), listener.metadata.as_str()), (Some("/run/agent.sock"), "m"));
    assert_eq!(rules.rules[1].conditions[0], Condition { index: 0, op: Op::MaskedEq(2_114_060_288), value: 0 });
    assert_eq!(rules.rules[1].conditions[1], Condition { index: 5, op: Op::Ne, value: u64::MAX });
    assert_eq!((rules.rules[2].action, rules.rules[2].names[0].as_str()), (Action::Trace(65535), "ptrace"));
}

#[test]
fn every_action_has_its_name() {
    for (name, action) in [
        ("SCMP_ACT_KILL", Action::KillThread),
        ("SCMP_ACT_KILL_THREAD", Action::KillThread),
        ("SCMP_ACT_KILL_PROCESS", Action::KillProcess),
        ("SCMP_ACT_TRAP", Action::Trap),
        ("SCMP_ACT_ERRNO", Action::Errno(1)),
        ("SCMP_ACT_TRACE", Action::Trace(1)),
        ("SCMP_ACT_ALLOW", Action::Allow),
        ("SCMP_ACT_LOG", Action::Log),
    ] {
        assert_eq!(read(&one(&json!({"names": ["read"], "action": name}))).unwrap().rules[0].action, action, "{name}");
    }
}

#[test]
fn entries_for_other_situations_are_left_out() {
    for (condition, kept) in [
        (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), true),
        (json!({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}), false),
        (json!({"includes": {"arches": ["amd64", "x32"]}}), true),
        (json!({"includes": {"arches": ["s390x"]}}), false),
        (json!({"includes": {"minKernel": "4.8"}}), true),
        (json!({"includes": {"minKernel": "6.2"}}), false),
        (json!({"excludes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}}), false),
        (json!({"excludes": {"caps": ["CAP_BPF"]}}), true),
        (json!({"excludes": {"arches": ["amd64"]}}), false),
        (json!({"excludes": {"minKernel": "6.1"}}), false),
        (json!({"includes": {}, "excludes": null}), true),
    ] {
        let mut entry = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        entry.as_object_mut().unwrap().append(condition.clone().as_object_mut().unwrap());
        assert_eq!(read(&one(&entry)).unwrap().rules.len(), usize::from(kept), "{condition}");
    }
}

#[test]
fn the_architectures_of_a_map_are_those_of_the_native_one() {
    let map = json!([
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
    ]);
    let rules = read(&json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": map})).unwrap();
    assert_eq!(rules.arches, [Arch::X86, Arch::X32]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    refused(&json!({}), &["JSON", "defaultAction"]);
    refused(&json!({"defaultAction": 1}), &["JSON"]);
    refused(&json!({"defaultAction": "ALLOW"}), &["defaultAction", "ALLOW"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), &["defaultErrnoRet"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}), &["defaultErrnoRet", "4096"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["Z80"]}), &["architectures", "Z80"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}), &["flags", "FAST"]);
    let flag = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flag}), &["flags", "SCMP_ACT_NOTIFY"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "a"}), &["listenerPath", "absolute"]);
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "a"}), &["listenerMetadata"]);
    let both = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
    });
    refused(&both, &["archMap", "architectures"]);

    let entry = |change: Value| {
        let mut entry = json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO"});
        entry.as_object_mut().unwrap().append(change.clone().as_object_mut().unwrap());
        one(&entry)
    };
    refused(&entry(json!({"names": []})), &["syscalls[0].names"]);
    refused(&entry(json!({"names": [""]})), &["syscalls[0]", "empty"]);
    refused(&entry(json!({"name": "read"})), &["syscalls[0].name"]);
    refused(&entry(json!({"action": "SCMP_ACT_DENY"})), &["syscalls[0].action", "SCMP_ACT_DENY"]);
    refused(&entry(json!({"action": "SCMP_ACT_NOTIFY"})), &["listenerPath", "SCMP_ACT_NOTIFY"]);
    refused(&entry(json!({"action": "SCMP_ACT_KILL", "errnoRet": 5})), &["syscalls[0].errnoRet"]);
    refused(&entry(json!({"errnoRet": 65536})), &["syscalls[0].errnoRet", "65536"]);
    refused(&entry(json!({"includes": {"minKernel": "new"}})), &["includes.minKernel", "new"]);
    let argument = |index: u64, two: u64, op: &str| {
        entry(json!({"args": [{"index": index, "value": 1, "valueTwo": two, "op": op}]}))
    };
    refused(&argument(6, 0, "SCMP_CMP_EQ"), &["syscalls[0] (chmod).args[0].index", "6"]);
    refused(&argument(0, 0, "=="), &["syscalls[0] (chmod).args[0].op", "=="]);
    refused(&argument(0, 2, "SCMP_CMP_MASKED_EQ"), &["args[0].valueTwo", "0x2"]);
    refused(&entry(json!({"args": [{"index": -1, "value": 1, "op": "SCMP_CMP_EQ"}]})), &["JSON"]);
    let many: Vec<_> = (0..4097).map(|_| json!({"names": ["read"], "action": "SCMP_ACT_KILL"})).collect();
    refused(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many}), &["4097", "4096"]);
}

#[test]
fn versions_of_kernels() {
    assert_eq!(kernel_version("6.18.44-fc-v669"), Some((6, 18)));
    assert_eq!(kernel_version("4.8"), Some((4, 8)));
    assert_eq!(kernel_version("6"), None);
}
