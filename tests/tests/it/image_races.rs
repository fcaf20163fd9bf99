//! Images that go while containers of them are being made.

use std::time::Duration;

use tonic::Code;
use tripod_cri_api::v1::PodSandboxConfig;
use tripod_tests::{Cri, Image, Layer, Node, Tree, host_pod, image_spec, log_text, shell, tests, tripod, with_input};

use crate::disk_faults::{Chance, seed, sound};

tests![images_go_while_containers_come];

const ROUNDS: u32 = 10;

/// Pulls an image and makes a container from it, by name or by ID, that says what its image has. Gives whether the image
/// was still there; if it was, nothing may be missing.
async fn make(cri: &Cri, (pod, config): (&str, &PodSandboxConfig), word: &str, number: u32, by_id: bool) -> bool {
    let name = format!("registry.test/{word}:1");
    let id = cri.pull(&name).await.expect("a pull beside removals");
    let image = if by_id { id } else { name };
    let mut container = shell(&format!("{word}-{number}"), "cat /word /deep/word && wc -c < /filler");
    container.image = Some(image_spec(&image));
    let created = match cri.create(pod, config, &container).await {
        Ok(created) => created,
        Err(error) => {
            // A name is told as the ID that it was a moment before.
            let told = error.message().contains("is not on this node: pull it");
            assert!(error.code() == Code::NotFound && told, "{image}: {error}");
            return false;
        }
    };
    cri.start(&created).await.expect("start what could be made");
    let status = cri.exited(&created).await;
    let text = log_text(&std::fs::read_to_string(&status.log_path).expect("read a log"));
    assert_eq!((status.exit_code, text.trim()), (0, format!("{word}\n{word}\n200000").as_str()));
    cri.remove(&created).await.expect("remove a container");
    true
}

/// 30.
async fn images_go_while_containers_come(node: &mut Node) {
    let registry = node.registry().await;
    let words = ["one", "two"];
    for word in words {
        let line = format!("{word}\n");
        let deep = Layer::zstd(Tree::default().dir("deep/", 0o755).file("deep/word", 0o644, line.clone()));
        let own = Layer::gzip(Tree::default().file("word", 0o644, line).file("filler", 0o644, "x".repeat(200_000)));
        registry.push(&format!("{word}:1"), &Image::new([Image::busybox().layers, vec![deep, own]].concat()));
    }
    let cri = node.start().await;
    let config = host_pod("races");
    let pod = cri.run_pod(&config).await.unwrap();
    let seed = seed();
    let mut chance = Chance(seed);
    let (mut made, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let pauses: Vec<u64> = (0..8).map(|_| chance.next(25).into()).collect();
        let removals = async {
            for (pause, word) in pauses.iter().zip(words.iter().cycle()) {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                cri.remove_image(&format!("registry.test/{word}:1")).await.expect("remove an image");
            }
        };
        let prune = async {
            let (code, output, error) = with_input(tripod(&["image", "prune", "--all"]), b"").await;
            assert_eq!(code, 0, "{}{error}", String::from_utf8_lossy(&output));
        };
        let by_id = round % 2 == 0;
        let in_pod = (pod.as_str(), &config);
        let (one, two, (), ()) = tokio::join!(
            make(&cri, in_pod, words[0], round, by_id),
            make(&cri, in_pod, words[1], round, !by_id),
            removals,
            prune
        );
        for was_there in [one, two] {
            *(if was_there { &mut made } else { &mut refused }) += 1;
        }
        sound(&format!("round {round}, seed {seed}")).await;
    }
    println!("{made} containers were made, {refused} came too late");
    assert_eq!(made + refused, 2 * ROUNDS);
    // With nobody else about all is as ever.
    assert!(make(&cri, (&pod, &config), words[0], ROUNDS, true).await);
    cri.remove_pod(&pod).await.unwrap();
    node.clear(&cri).await;
    let left = node.left_in_root();
    assert!(left.is_empty(), "left behind: {left:?}");
}
