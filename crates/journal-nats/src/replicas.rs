//! What the stream's servers are to it, as its leader says.

use serde_json::Value;

use crate::journal::NatsJournal;
use crate::{Failure, stream};

/// A server that holds the stream, as its leader says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub server: String,
    /// It orders the stream.
    pub leads: bool,
    /// It has all of it.
    pub is_current: bool,
    /// It is not reached.
    pub is_offline: bool,
    /// Entries that it is behind.
    pub lag: u64,
}

impl NatsJournal {
    /// The servers that hold the stream.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn replicas(&self) -> Result<Vec<Replica>, Failure> {
        Ok(replicas(&self.info()?))
    }
}

fn replicas(info: &Value) -> Vec<Replica> {
    let text = |it: &Value, name: &str| it.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(cluster) = info.get("cluster") else {
        let [server] = stream::members(info).try_into().unwrap_or([String::new()]);
        return vec![Replica { server, leads: true, is_current: true, is_offline: false, lag: 0 }];
    };
    let leader = text(cluster, "leader").map(|server| Replica {
        server,
        leads: true,
        is_current: true,
        is_offline: false,
        lag: 0,
    });
    let others = cluster.get("replicas").and_then(Value::as_array).into_iter().flatten();
    let others = others.filter_map(|it| {
        let flag = |name: &str| it.get(name).and_then(Value::as_bool).unwrap_or_default();
        let lag = it.get("lag").and_then(Value::as_u64).unwrap_or_default();
        let server = text(it, "name")?;
        let (is_current, is_offline) = (flag("current"), flag("offline"));
        Some(Replica { server, leads: false, is_current, is_offline, lag })
    });
    let mut all: Vec<_> = leader.into_iter().chain(others).collect();
    all.sort_by(|one, other| one.server.cmp(&other.server));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn servers_are_read_of_what_the_stream_says() {
        let info = json!({ "cluster": { "leader": "b", "replicas": [
            { "name": "c", "current": false, "offline": true, "lag": 7 },
            { "name": "a", "current": true },
        ] } });
        let all = replicas(&info);
        let names: Vec<_> = all.iter().map(|it| (it.server.as_str(), it.leads)).collect();
        assert_eq!(names, [("a", false), ("b", true), ("c", false)]);
        assert!(all[0].is_current && !all[2].is_current && all[2].is_offline && all[2].lag == 7);
        // Without a leader the others are there all the same.
        let info = json!({ "cluster": { "replicas": [{ "name": "c" }] } });
        assert_eq!(replicas(&info).len(), 1);
        // One server that is no cluster.
        assert!(replicas(&json!({})).iter().all(|it| it.leads && it.is_current));
    }
}
