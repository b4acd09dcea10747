//! A network of its own for a test, in which a process can be cut off: each server and each daemon in a name space, with
//! a cable to the test, which passes on between them. Daemons have a second cable, by which clients come; so a daemon
//! that is cut off from everything else still answers who asks it.
//!
//! The whole test runs in name spaces of its own: nothing of this machine is changed, and with the test ends every
//! process that it began.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::Place;

/// Set for the test that runs in name spaces of its own.
const INSIDE: &str = "CLUSTER_INSIDE";
/// Set by who knows that name spaces are not allowed here.
const WITHOUT: &str = "CLUSTER_WITHOUT_NETWORK";

/// Runs this test again in name spaces of its own, and answers false here when it is through. True there, and where
/// that is not allowed and this is known. Where it is not known the test fails.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_allowed = apart(Path::new("true")).status().is_ok_and(|status| status.success());
    if !is_allowed {
        assert!(
            std::env::var_os(WITHOUT).is_some(),
            "name spaces are not allowed here (they are for root): set {WITHOUT}=1 to leave out what is cut off and disks \
             that are full"
        );
        println!("LEFT OUT: nobody is cut off and no disk is full ({WITHOUT} is set)");
        return true;
    }
    let mut command = apart(&std::env::current_exe().unwrap());
    let status = command.args([test, "--exact", "--nocapture"]).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{test}, in name spaces of its own: {status}");
    false
}

/// A command in name spaces of its own, which end with this process, and everything in them.
fn apart(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc"]).arg(program);
    command
}

/// The cables of one test.
pub struct Network {
    dir: PathBuf,
    names: Vec<String>,
}

impl Network {
    /// None where the test is not in name spaces of its own.
    pub fn new(dir: &Path) -> Option<Network> {
        std::env::var_os(INSIDE)?;
        shell("ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward");
        Some(Network { dir: dir.to_owned(), names: Vec::new() })
    }

    /// A place with cables; the second address is that by which clients come.
    pub fn place(&mut self, name: &str) -> (Place, String) {
        self.names.push(name.to_owned());
        let nth = self.names.len();
        let space = self.dir.join(format!("{name}.net"));
        File::create(&space).unwrap();
        let (space, hub) = (space.display(), std::process::id());
        shell(&format!(
            "unshare --net='{space}' true
             nsenter --net='{space}' sh -e -c '
               ip link set lo up
               ip link add eth0 type veth peer name in{nth} netns {hub}
               ip link add eth1 type veth peer name out{nth} netns {hub}
               ip addr add 10.77.{nth}.2/24 dev eth0
               ip addr add 10.78.{nth}.2/24 dev eth1
               ip link set eth0 up
               ip link set eth1 up'
             ip addr add 10.77.{nth}.1/24 dev in{nth}
             ip addr add 10.78.{nth}.1/24 dev out{nth}
             ip link set in{nth} up
             ip link set out{nth} up
             nsenter --net='{space}' ip route add default via 10.77.{nth}.1"
        ));
        let enter = ["nsenter".to_owned(), format!("--net={space}")];
        let place = Place { host: format!("10.77.{nth}.2"), enter: enter.into() };
        (place, format!("10.78.{nth}.2"))
    }

    fn rules(&self, name: &str, what: &str, ways: Ways) {
        let nth = self.names.iter().position(|it| it == name).unwrap() + 1;
        let ways: &[&str] = match ways {
            Ways::Both => &["from", "to"],
            Ways::In => &["to"],
        };
        for way in ways {
            shell(&format!("ip rule {what} {way} 10.77.{nth}.2 priority 10 blackhole"));
        }
    }

    /// From now on nothing passes that goes to, or comes from, a place; nobody is told.
    pub fn cut(&self, name: &str, ways: Ways) {
        self.rules(name, "add", ways);
    }

    /// As it was before [`Network::cut`].
    pub fn join(&self, name: &str, ways: Ways) {
        self.rules(name, "del", ways);
    }
}

/// Which packets do not pass.
#[derive(Clone, Copy, Debug)]
pub enum Ways {
    Both,
    /// What is said at the place is heard, and no answer comes back.
    In,
}

pub fn shell(script: &str) {
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}
