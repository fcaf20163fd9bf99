use rustix::fs::{CWD, Mode};

use super::*;
use crate::{Kind, isolator::fixture::Fixture};

const PASSWD: &str = "\
# comment
root:x:0:0:root:/root:/bin/sh
:x:7:7::/nameless:
broken
+nis::::::
bad:x:twelve:12::/:
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
default-user:x:1000:1000::/home/default:
short:x:5:6
1234:x:0:0::/odd:
99999999999:x:0:0::/:
www-data:x:34:34:second:/nowhere:
";

const GROUP: &str = "\
root:x:0:
# no
staff:x:50:www-data
www-data:x:33:
group-defined-in-image:x:50000:default-user, other
both:x:60:other,default-user
broken:x::default-user
1234:x:0:
99999999999:x:0:
";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("etc/passwd", PASSWD);
    fixture.write("etc/group", GROUP);
    fixture
}

async fn run(fixture: &Fixture) -> Result<(Ids, String)> {
    let plan = fixture.prepare(&Credentials).await?;
    let home = plan.process.env.iter().find_map(|entry| entry.strip_prefix("HOME=")).unwrap();
    Ok((plan.process.credentials, home.to_owned()))
}

fn ids(uid: u32, gid: u32, groups: &[u32]) -> Ids {
    Ids { uid, gid, groups: groups.to_vec(), umask: None }
}

#[tokio::test]
async fn image_users_in_all_forms() {
    for (user, expected, home) in [
        ("", ids(0, 0, &[0]), "/root"),
        ("root", ids(0, 0, &[0]), "/root"),
        ("1002", ids(1002, 0, &[0]), "/"),
        ("www-data", ids(33, 33, &[33, 50]), "/var/www"),
        ("33", ids(33, 33, &[33, 50]), "/var/www"),
        ("1003:1004", ids(1003, 1004, &[1004]), "/"),
        ("www-data:1004", ids(33, 1004, &[1004, 50]), "/var/www"),
        ("www-data:staff", ids(33, 50, &[50]), "/var/www"),
        (":staff", ids(0, 50, &[50]), "/root"),
        ("www-data:", ids(33, 33, &[33, 50]), "/var/www"),
        ("short", ids(5, 6, &[6]), "/"),
        // Digits are never a name.
        ("1234", ids(1234, 0, &[0]), "/"),
        ("5:1234", ids(5, 1234, &[1234]), "/"),
    ] {
        let mut fixture = fixture();
        fixture.config.image.config.user = user.to_owned();
        assert_eq!(run(&fixture).await.unwrap(), (expected, home.to_owned()), "{user:?}");
    }
}

#[tokio::test]
async fn the_request_replaces_the_images_user() {
    let mut fixture = fixture();
    fixture.config.image.config.user = "www-data:staff".to_owned();
    fixture.config.security.uid = Some(1000);
    assert_eq!(run(&fixture).await.unwrap().0, ids(1000, 1000, &[1000, 50000, 60]));
    fixture.config.security.gid = Some(2000);
    assert_eq!(run(&fixture).await.unwrap().0, ids(1000, 2000, &[2000, 50000, 60]));
    fixture.config.security.uid = None;
    fixture.config.security.username = "default-user".to_owned();
    assert_eq!(run(&fixture).await.unwrap().0, ids(1000, 2000, &[2000, 50000, 60]));
}

#[tokio::test]
async fn policies_of_supplementary_groups() {
    let mut fixture = fixture();
    fixture.config.security.uid = Some(1000);
    fixture.config.security.supplemental_groups = vec![1234, 60, 1234];
    assert_eq!(run(&fixture).await.unwrap().0.groups, [1000, 50000, 60, 1234]);
    fixture.config.security.supplemental_groups_policy = GroupsPolicy::Strict;
    assert_eq!(run(&fixture).await.unwrap().0.groups, [1000, 1234, 60]);
}

#[tokio::test]
async fn what_contradicts_itself_or_is_unknown_is_refused() {
    let changes: [fn(&mut ContainerConfig); 11] = [
        |config| config.security.gid = Some(1),
        |config| (config.security.uid, config.security.username) = (Some(1), "root".to_owned()),
        |config| config.security.username = "nobody-here".to_owned(),
        |config| config.image.config.user = "nobody-here".to_owned(),
        |config| config.image.config.user = "root:nogroup-here".to_owned(),
        |config| config.image.config.user = "99999999999".to_owned(),
        |config| config.image.config.user = "5:99999999999".to_owned(),
        |config| config.image.config.user = "4294967296".to_owned(),
        |config| config.security.username = "99999999999".to_owned(),
        |config| config.security.uid = Some(u32::MAX),
        |config| config.security.supplemental_groups = vec![u32::MAX],
    ];
    for change in changes {
        let mut fixture = fixture();
        change(&mut fixture.config);
        assert_eq!(run(&fixture).await.unwrap_err().kind(), Kind::InvalidArgument, "{:?}", fixture.config.security);
    }
}

#[tokio::test]
async fn an_image_without_the_files_runs_numbers() {
    let mut fixture = Fixture::new();
    std::fs::remove_dir(fixture.root().join("etc")).unwrap();
    assert_eq!(run(&fixture).await.unwrap(), (ids(0, 0, &[0]), "/".to_owned()));
    fixture.config.image.config.user = "www-data".to_owned();
    assert!(run(&fixture).await.unwrap_err().to_string().contains("www-data"));
}

#[tokio::test]
async fn symlinks_stay_inside_the_image() {
    let mut fixture = Fixture::new();
    std::fs::write(fixture.host("passwd"), "evil:x:666:666::/:\n").unwrap();
    std::os::unix::fs::symlink("../../../passwd", fixture.root().join("etc/passwd")).unwrap();
    fixture.config.image.config.user = "evil".to_owned();
    assert!(run(&fixture).await.is_err());
    fixture.write("passwd", "evil:x:7:7::/:\n");
    assert_eq!(run(&fixture).await.unwrap().0.uid, 7, "`..` ends at the image's root");
}

#[tokio::test]
async fn only_files_of_a_sane_size_are_read() {
    let fixture = Fixture::new();
    let path = fixture.root().join("etc/passwd");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(run(&fixture).await.unwrap_err().to_string().contains("is not a file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&path).unwrap().set_len(9 << 20).unwrap();
    assert!(run(&fixture).await.unwrap_err().to_string().contains("longer than 8 MiB"));
}

#[tokio::test]
async fn home_is_left_alone_if_set() {
    let fixture = fixture();
    let mut plan = LaunchPlan::default();
    plan.process.env = vec!["HOMEBREW=1".to_owned(), "HOME=/mine".to_owned()];
    fixture.prepare_into(&Credentials, &mut plan).await.unwrap();
    assert_eq!(plan.process.env, ["HOMEBREW=1", "HOME=/mine"]);
}

proptest::proptest! {
    #[test]
    fn no_content_of_the_files_breaks_the_parsers(
        passwd in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        group in "([a-z+#-]{0,3}:[x:]{0,2}[0-9]{0,11}:[a-z,: ]{0,9}\n?){0,8}",
        user in "[a-z0-9:]{0,6}",
    ) {
        let mut fixture = Fixture::new();
        std::fs::write(fixture.root().join("etc/passwd"), passwd).unwrap();
        fixture.write("etc/group", &group);
        fixture.config.image.config.user = user;
        let root = std::fs::File::open(fixture.root()).unwrap();
        if let Ok((ids, home)) = resolve(&fixture.config, &Database::new(std::os::fd::AsFd::as_fd(&root))) {
            proptest::prop_assert!(ids.uid != u32::MAX && ids.gid != u32::MAX && !home.is_empty());
            proptest::prop_assert_eq!(ids.groups[0], ids.gid);
        }
    }
}
