//! The system's clock may do what it likes: timestamps only go forward, and what is written stays visible in its order.

use livelake_dataflow::handle::EngineConfig;

use super::*;

const HOUR: u64 = 3_600_000_000;
const NOW: u64 = 1_740_960_000_000_000;

/// What the system's clock shows.
static WALL: AtomicU64 = AtomicU64::new(NOW);

#[actix::test]
async fn timestamps_go_forward_when_the_clock_jumps_back_and_forth() {
    let engine = EngineHandle::start(&EngineConfig { workers: 1, retention_us: 0 }).unwrap();
    let memory = Arc::new(MemoryGuard::new(None));
    let mut clock = Clock::new(engine, Duration::from_millis(1), true, NOW - 5, AllPositions::new(), memory);
    clock.wall = || WALL.load(Ordering::SeqCst);
    let clock = clock.start();
    let mut last = NOW - 5;
    let jumps = [NOW, NOW - HOUR, NOW + 7, NOW + HOUR, NOW + HOUR - 1, NOW - HOUR, 0, NOW + HOUR + 3, NOW + 2 * HOUR];
    for wall in jumps {
        WALL.store(wall, Ordering::SeqCst);
        for _ in 0..3 {
            let time = clock.send(Flush).await.unwrap().unwrap();
            assert!(time > last, "{time} after {last}, when the system's clock shows {wall}");
            // and it follows the system's clock wherever that is ahead
            assert!(time <= wall.max(last + 1) + 3, "{time} is ahead of {wall} and of {last}");
            last = time;
        }
        let (cut, _) = clock.send(Cut).await.unwrap();
        assert!(cut > last);
        last = cut;
    }
}
