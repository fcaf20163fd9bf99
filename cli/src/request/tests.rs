use clap::Parser;

use super::{bytes, container, env, pod, port, user, volume};
use crate::{Command, args::RunArgs};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn run(words: &[&str]) -> Box<RunArgs> {
    match Line::try_parse_from(["tripod", "run"].iter().chain(words)).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_behind_the_image_are_the_commands_own() {
    let args = run(&["--rm", "busybox", "ls", "-l", "--rm"]);
    assert_eq!(args.command, ["ls", "-l", "--rm"]);
    let config = container(&args, "x", "sha256:ab").unwrap();
    assert_eq!(config.image.unwrap().user_specified_image, "busybox");
    assert_eq!((config.command, config.args), (Vec::<String>::new(), args.command));
}

#[test]
fn volumes_ports_users_and_variables() {
    let mount = volume("/a:/b:ro").unwrap();
    assert_eq!((mount.host_path.as_str(), mount.container_path.as_str(), mount.readonly), ("/a", "/b", true));
    for wrong in ["a:/b", "/a", "/a:/b:rx", "/a:/b:ro:z"] {
        assert!(volume(wrong).is_err(), "{wrong}");
    }
    let mapping = port("8080:80/udp").unwrap();
    assert_eq!((mapping.host_port, mapping.container_port, mapping.protocol), (8080, 80, 1));
    for wrong in ["80", "0:80", "80:70000", "1:2/xyz"] {
        assert!(port(wrong).is_err(), "{wrong}");
    }
    assert_eq!(user("7:8").unwrap().1.unwrap().value, 8);
    assert_eq!(user("nobody").unwrap().2, "nobody");
    assert!(user("nobody:staff").is_err() && user(":1").is_err());
    assert_eq!(env("A=b=c").unwrap().value, b"b=c");
    assert!(env("=x").is_err());
}

#[test]
fn limits() {
    assert_eq!(bytes("512m").unwrap(), 512 << 20);
    assert_eq!(bytes("2GiB").unwrap(), 2 << 30);
    assert_eq!(bytes("4096").unwrap(), 4096);
    for wrong in ["", "m", "-1", "0", "1x", "99999999999g"] {
        assert!(bytes(wrong).is_err(), "{wrong}");
    }
    let args = run(&["--memory", "64m", "--cpus", "0.5", "i"]);
    let limits = container(&args, "x", "i").unwrap().linux.unwrap().resources.unwrap();
    assert_eq!((limits.memory_limit_in_bytes, limits.cpu_quota, limits.cpu_shares), (64 << 20, 50_000, 512));
}

#[test]
fn a_privileged_container_gets_a_privileged_pod() {
    let args = run(&["--privileged", "--network", "host", "i"]);
    let pod = pod(&args, "x", "u", "/logs".as_ref()).unwrap();
    assert!(pod.linux.unwrap().security_context.unwrap().privileged);
    assert_eq!(pod.hostname, "");
    let context = container(&args, "x", "i").unwrap().linux.unwrap().security_context.unwrap();
    assert!(context.privileged && context.masked_paths.is_empty());
}
