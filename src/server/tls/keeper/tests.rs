use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Files, what is in force by them, and the time.
struct World {
    dir: TempDir,
    all: Certificates,
    now: SystemTime,
}

/// A certificate valid for so long, and its key.
fn pair(valid: Duration) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = (SystemTime::now() + valid).into();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

impl World {
    fn new(valid: Duration) -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = TlsFiles { cert: path("cert"), key: path("key"), client_ca: None };
        put(&dir, &pair(valid));
        World { all: Certificates::open(files).unwrap(), dir, now: SystemTime::now() }
    }

    /// One look, and how many days what is in force then has left.
    fn days(&self) -> u64 {
        self.all.look(self.now);
        let left = self.all.not_after().duration_since(SystemTime::now()).unwrap_or_default();
        (left + DAY / 2).as_secs() / DAY.as_secs()
    }
}

fn put(dir: &TempDir, (cert, key): &(String, String)) {
    std::fs::write(dir.path().join("cert"), cert).unwrap();
    std::fs::write(dir.path().join("key"), key).unwrap();
}

#[test]
fn what_is_new_counts_once_it_was_seen_twice() {
    let world = World::new(DAY * 100);
    assert_eq!(world.days(), 100);
    let next = pair(DAY * 200);
    // The half of a chain looks whole.
    let whole = (format!("{}{}", next.0, pair(DAY * 150).0), next.1.clone());
    put(&world.dir, &next);
    assert_eq!(world.days(), 100);
    put(&world.dir, &whole);
    assert_eq!(world.days(), 100);
    // As the chain ends where its first certificate does.
    assert_eq!((world.days(), world.days()), (150, 150));
    assert_eq!(world.all.trouble(), None);
}

#[test]
fn one_look_at_half_a_renewal_is_no_trouble() {
    let world = World::new(DAY * 100);
    let next = pair(DAY * 200);
    std::fs::write(world.dir.path().join("cert"), &next.0).unwrap();
    assert_eq!((world.days(), world.all.trouble()), (100, None));
    put(&world.dir, &next);
    world.days();
    assert_eq!((world.days(), world.all.trouble()), (200, None));
    // Two of them are; a wish to reload needs but one.
    std::fs::remove_file(world.dir.path().join("key")).unwrap();
    world.days();
    assert_eq!(world.all.trouble(), None);
    world.days();
    assert!(world.all.trouble().unwrap().contains("tls.key_file"));
    put(&world.dir, &next);
    world.days();
    assert_eq!(world.all.trouble(), None);
    std::fs::write(world.dir.path().join("key"), "").unwrap();
    world.all.reload();
    assert!(world.all.trouble().unwrap().contains("no private key"));
    put(&world.dir, &pair(DAY * 300));
    world.all.reload();
    assert_eq!((world.days(), world.all.trouble()), (300, None));
}

/// What was early becomes valid without anybody touching the files.
#[test]
fn the_end_of_what_is_in_force_is_trouble_and_time_mends_what_came_early() {
    let mut world = World::new(DAY * 10);
    let begin = world.now;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = (begin + DAY * 20).into();
    params.not_after = (begin + DAY * 40).into();
    put(&world.dir, &(params.self_signed(&key).unwrap().pem(), key.serialize_pem()));
    world.days();
    assert_eq!(world.days(), 10);
    assert!(world.all.trouble().unwrap().contains("not valid before"));
    world.now = begin + DAY * 11;
    assert_eq!(world.days(), 10);
    let trouble = world.all.trouble().unwrap();
    assert!(trouble.starts_with("the certificate in force: it expired at"), "{trouble}");
    world.now = begin + DAY * 21;
    assert_eq!((world.days(), world.all.trouble()), (40, None));
}
