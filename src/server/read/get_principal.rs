//! `GetPrincipal`: whom the server takes the caller for.

use crate::server::principal::Caller;
use crate::server::rpc::convert;
use tailmark_wire::feed_v1 as pb;

/// Everything is told as everything where nobody is asked who they are.
const ALL: &str = ">";

/// Who calls, and what they may.
pub(crate) fn get_principal(caller: &Caller) -> pb::Principal {
    let Some(session) = caller.session() else {
        let (publish, watch) = (vec![ALL.to_owned()], vec![ALL.to_owned()]);
        return pb::Principal { publish, watch, admin: true, ..pb::Principal::default() };
    };
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    let rights = session.rights();
    pb::Principal {
        name: session.name().to_string(),
        publish: owned(rights.publish()),
        watch: owned(rights.watch()),
        admin: rights.is_admin(),
        expires: session.expires().map(convert::timestamp),
    }
}
