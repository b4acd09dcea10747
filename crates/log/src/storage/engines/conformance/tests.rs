use std::sync::Mutex;

use uuid::Uuid;

use super::super::faulty::Faulty;
use super::super::memory::{self, Memory};
use super::*;
use tailmark_record::{FingerprintKey, GenerationTable, LogId, Timestamp};

/// Memory behind what is tested: an engine of its own for each opening.
struct InMemory {
    options: memory::Options,
    is_wrapped: bool,
    last: Mutex<Option<Arc<Memory>>>,
}

impl InMemory {
    fn new(options: memory::Options, is_wrapped: bool) -> InMemory {
        InMemory { options, is_wrapped, last: Mutex::default() }
    }

    fn hand_out(&self, memory: Memory, recovered: Recovered) -> Opened {
        let memory = Arc::new(memory);
        *self.last.lock().unwrap() = Some(memory.clone());
        let engine: Arc<dyn Engine> =
            if self.is_wrapped { Arc::new(Faulty::new(memory)) } else { memory };
        Opened { engine, recovered }
    }
}

impl Factory for InMemory {
    fn create(&mut self) -> Opened {
        let memory = Memory::new(
            LogId::new(Uuid::from_u128(1)),
            FingerprintKey::new([3; 16]),
            GenerationTable::created(7, Timestamp::EPOCH),
            self.options.clone(),
        );
        self.hand_out(memory, Recovered::default())
    }

    fn reopen(&mut self, _: Arc<dyn Engine>, how: Reopen) -> Opened {
        let last = self.last.lock().unwrap().take().unwrap();
        let (memory, recovered) = match how {
            Reopen::Clean => last.reopen(),
            Reopen::Crash => last.crash(),
        };
        self.hand_out(memory, recovered)
    }

    fn lose(&mut self, _: Arc<dyn Engine>, ranges: &[Range<Seq>]) -> Opened {
        let last = self.last.lock().unwrap().take().unwrap();
        ranges.iter().for_each(|range| last.lose(range.clone()).unwrap());
        let (memory, recovered) = last.reopen();
        self.hand_out(memory, recovered)
    }
}

fn small() -> memory::Options {
    memory::Options { chunk_bytes: 300, state_every_bytes: 2_000, ..memory::Options::default() }
}

#[test]
fn memory_conforms() {
    run(|| InMemory::new(memory::Options::default(), false));
    run(|| InMemory::new(small(), false));
}

#[test]
fn a_faulty_engine_without_faults_conforms() {
    run(|| InMemory::new(small(), true));
}
