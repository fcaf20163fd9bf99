//! Many sessions at once.

use std::sync::Arc;

use tokio::{sync::Barrier, task::JoinSet, time::Duration};

use crate::{
    nothing_is_left,
    spdy_client::{Client, exit_code},
    world::ALL,
    ws_client,
};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn five_hundred_sessions() {
    nothing_is_left(LIMIT, async |world| {
        let mut clients = JoinSet::new();
        let all = Arc::new(Barrier::new(500));
        for number in 0..500_u32 {
            let (world, all) = (world.clone(), all.clone());
            clients.spawn(async move {
                let url = world.sh("cat; exit 7", ALL);
                let text = format!("session {number}");
                let (back, status) = if number.is_multiple_of(2) {
                    let mut client = Client::start(&url, "v4.channel.k8s.io", ALL).await;
                    client.write(text.as_bytes()).await;
                    all.wait().await;
                    client.end().await;
                    let (stdout, _, status) = client.finish().await;
                    (stdout, status)
                } else {
                    let mut client = ws_client::Client::start(&url, "v5.channel.k8s.io").await;
                    client.send(0, text.as_bytes()).await;
                    all.wait().await;
                    client.end(0).await;
                    let told = client.finish().await;
                    (told.channels[1].clone(), told.status())
                };
                assert_eq!((&*back, exit_code(&status)), (text.as_bytes(), 7));
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    });
}
