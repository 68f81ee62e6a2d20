//! A network that fails: connections to the bucket and to the catalog are cut at random places, or stall. Every commit comes to an end, says
//! so in words if it failed, and can be made again; what got through in spite of a lost answer is found by looking.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// The variable that names a file: while it is there, networks do harm. (A file, because one of them is in another process.)
pub(super) const HARM: &str = "LIVELAKE_TEST_HARM";

/// Passes connections on, and does harm to some of them while told to.
pub(super) struct Network {
    pub(super) port: u16,
    /// Connections that were cut.
    pub(super) cuts: Arc<AtomicU64>,
}

impl Network {
    /// In front of a port of this machine; one piece of so many is cut, three are late, while the file `harm` is there.
    pub(super) fn before(port: u16, one_in: u32, seed: u64, harm: PathBuf) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Network { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let cuts = Arc::clone(&network.cuts);
        // ends with the process
        std::thread::spawn(move || {
            let mut seeds = SmallRng::seed_from_u64(seed);
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)));
                let Ok(server) = server else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (harm, cuts, rng) = (harm.clone(), Arc::clone(&cuts), SmallRng::seed_from_u64(seeds.random()));
                    std::thread::spawn(move || pass_on(from, to, &harm, &cuts, one_in, rng));
                }
            }
        });
        network
    }
}

/// Passes bytes on, until either end closes or harm is done: a cut within a piece, or a piece that comes late.
fn pass_on(mut from: TcpStream, mut to: TcpStream, harm: &Path, cuts: &AtomicU64, one_in: u32, mut rng: SmallRng) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut passed = count;
        if harm.exists() {
            match rng.random_range(0..one_in) {
                0 => passed = rng.random_range(0..count),
                1..4 => std::thread::sleep(Duration::from_millis(rng.random_range(1..50))),
                _ => {}
            }
        }
        if to.write_all(&buffer[..passed]).is_err() {
            break;
        }
        if passed < count {
            cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    // an end that is closed already is as good
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn rows(of: i64) -> Contents {
    (of..of * 3 + 5).map(|id| (id, (Some(id * 3_600_000_000), Some("Queens".to_string()), of + id))).collect()
}

/// Commits on top of each other over that network until twelve are through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_get_through() {
    let folder = tempfile::tempdir().unwrap();
    let Some((catalog, _)) = remote::places(folder.path()) else { return };
    let harm = PathBuf::from(std::env::var_os(HARM).unwrap());
    let port = |url: &str| url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).unwrap().parse::<u16>().unwrap();
    let network = Network::before(port(&catalog), 40, 5, harm.clone());
    let catalog = catalog.replace(&format!(":{}/", port(&catalog)), &format!(":{}/", network.port));
    let lake = Lake::open(&LakeOptions { catalog, ..options(folder.path()) }).await.unwrap();
    let (mut failures, mut already) = (0, 0);
    for number in 1..=12_u64 {
        let n = number.cast_signed();
        let changes = difference(&if n > 1 { rows(n - 1) } else { Contents::new() }, &rows(n));
        loop {
            let tables = vec![
                TableChange { key: vec![0], ..change("n.days", "day(seen_at)", SinkMode::Snapshot, changes.clone()) },
                change("n.whole", "", SinkMode::Snapshot, changes.clone()),
            ];
            std::fs::write(&harm, "").unwrap();
            let done = lake.commit(&epoch(number), tables, &[], Arc::new(Rows::default())).await;
            std::fs::remove_file(&harm).unwrap();
            match done {
                Ok(report) => {
                    already += usize::from(report.already);
                    break;
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    failures += 1;
                }
            }
            assert!(failures < 1000, "nothing gets through");
        }
        for table in ["n.days", "n.whole"] {
            assert_eq!(rows_of(&lake, table, &schema()).await, batch(rows(n).iter()), "{table}, epoch {number}");
        }
    }
    let noted = lake.epochs(100).await.unwrap().iter().map(|epoch| epoch.number).collect::<Vec<_>>();
    assert_eq!(noted, (1..=12).rev().collect::<Vec<_>>());
    let cuts = network.cuts.load(Ordering::Relaxed);
    println!("{failures} commits failed, {already} had got through before; {cuts} connections to the catalog were cut");
    assert!(failures > 0 && cuts > 0, "the network did no harm");
}
