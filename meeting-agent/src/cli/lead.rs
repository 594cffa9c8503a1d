//! What a leader orders: `remove`, `rotate`, `lock`, `unlock`, `approve`.

use std::process::ExitCode;

use super::Common;
use crate::control::Request;

pub fn remove(common: &Common, who: String) -> anyhow::Result<ExitCode> {
    common.order(Request::Remove { meeting: common.meeting.clone(), who })
}

pub fn rotate(common: &Common) -> anyhow::Result<ExitCode> {
    common.order(Request::Rotate { meeting: common.meeting.clone() })
}

pub fn lock(common: &Common, locked: bool) -> anyhow::Result<ExitCode> {
    common.order(Request::Lock { meeting: common.meeting.clone(), locked })
}

pub fn approve(common: &Common, who: String) -> anyhow::Result<ExitCode> {
    common.order(Request::Approve { meeting: common.meeting.clone(), who })
}
