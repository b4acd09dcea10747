use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};

use super::*;

fn print(n: u8) -> Fingerprint {
    let mut bytes = [0; 16];
    // Few different hashes, so that table entries collide.
    bytes[0] = n % 3;
    // None is all zeros, as what was forgotten is.
    (bytes[14], bytes[15]) = (1, n);
    Fingerprint(bytes)
}

#[test]
fn the_oldest_entries_fall_out() {
    let mut window = Window::new(2);
    for n in 1..=3 {
        window.stage(print(n), Seq::new(n.into()));
        window.promote();
    }
    assert_eq!(window.find(print(1)), None);
    assert_eq!(window.find(print(2)), Some(Seq::new(2)));
    assert_eq!(window.find(print(3)), Some(Seq::new(3)));
    assert_eq!((window.len(), window.oldest()), (2, Some(Seq::new(2))));
}

#[test]
fn a_window_of_nothing_knows_nothing() {
    let mut window = Window::new(0);
    window.stage(print(1), Seq::FIRST);
    window.promote();
    assert_eq!((window.find(print(1)), window.len()), (None, 0));
}

#[test]
fn a_window_equals_a_plain_list() {
    for seed in 0..300 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let capacity = rng.random_range(1..12);
        let mut window = Window::new(capacity);
        // Ordinals wrap in the middle of the run.
        window.base = u32::MAX - 20;
        let mut model = VecDeque::<(u8, u64)>::new();
        let mut next = 1;
        for _ in 0..60 {
            let mut staged = model.clone();
            for _ in 0..rng.random_range(0..6) {
                let n = rng.random_range(0..10);
                window.stage(print(n), Seq::new(next));
                staged.push_back((n, next));
                next += 1;
            }
            check(&window, &staged);
            if rng.random_bool(0.3) {
                window.roll_back();
            } else {
                window.promote();
                while staged.len() > capacity {
                    staged.pop_front();
                }
                model = staged;
            }
            if rng.random_bool(0.2) {
                let (from, step) = (rng.random_range(0..next), rng.random_range(1..4));
                let is_gone = |seq: u64| seq >= from && seq.is_multiple_of(step);
                window.forget(|seq| is_gone(seq.get()));
                // Its slot stays.
                model.iter_mut().filter(|(_, seq)| is_gone(*seq)).for_each(|it| it.0 = u8::MAX);
            }
            check(&window, &model);
        }
    }
}

fn check(window: &Window, model: &VecDeque<(u8, u64)>) {
    assert_eq!(window.len(), model.len());
    for n in 0..10 {
        let expected = model.iter().rev().find(|(m, _)| *m == n).map(|(_, seq)| Seq::new(*seq));
        assert_eq!(window.find(print(n)), expected);
    }
}
