//! Network namespaces for tests, and small servers and clients in them.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountPropagationFlags, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

/// Moves this thread, and those that it starts, to a network and mounts of its own.
pub(super) fn leave() {
    tripod_sys::namespace::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).expect("new namespaces");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
}

/// Whether new interfaces of this thread's namespace look for duplicates of their IPv6 addresses first.
pub(super) fn duplicate_detection(on: bool) {
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", if on { "1" } else { "0" }).expect("a sysctl");
}

/// A network namespace.
pub(super) struct Space(OwnedFd);

impl Space {
    pub(super) fn new() -> Self {
        let make = || {
            tripod_sys::namespace::unshare(UnshareFlags::NEWNET).expect("a network namespace");
            Self::open("/proc/thread-self/ns/net".as_ref())
        };
        std::thread::spawn(make).join().expect("a namespace")
    }

    pub(super) fn open(path: &Path) -> Self {
        Self(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("a namespace"))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Does something inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let run = || {
                move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).expect("entered");
                work()
            };
            scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A TCP and a UDP server inside that answer with the caller's address as they see it.
    pub(super) fn serve(&self, port: u16) -> Server {
        self.run(|| Server::start(port))
    }
}

/// Answers with the caller's address until it is dropped.
pub(super) struct Server {
    end: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    /// In the namespace of the calling thread.
    pub(super) fn start(port: u16) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        // The wildcard address of IPv6 serves both families.
        let tcp = TcpListener::bind(("::", port)).expect("a TCP server");
        let udp = UdpSocket::bind(("::", port)).expect("a UDP server");
        tcp.set_nonblocking(true).expect("a non-blocking server");
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let (tcp_end, udp_end) = (end.clone(), end.clone());
        let tcp = std::thread::spawn(move || {
            while !tcp_end.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, peer)) => drop(stream.write_all(peer.ip().to_canonical().to_string().as_bytes())),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let udp = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !udp_end.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
                }
            }
        });
        Self { end, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Connects once, and gives the address under which the server saw us.
pub(super) fn tcp(to: SocketAddr) -> Result<IpAddr, String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    answer.parse().map_err(|_| format!("the server answered {answer:?}"))
}

/// Asks once by UDP, from a given port or any.
pub(super) fn udp(from: u16, to: SocketAddr) -> Result<IpAddr, String> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((any, from)).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a time-out");
    socket.connect(to).map_err(|error| error.to_string())?;
    socket.send(b"who am I").map_err(|error| error.to_string())?;
    let mut buffer = [0; 64];
    let size = socket.recv(&mut buffer).map_err(|error| error.to_string())?;
    String::from_utf8_lossy(&buffer[..size]).parse().map_err(|_| "no address".to_owned())
}

/// Waits for something that happens in the background.
pub(super) async fn eventually(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
