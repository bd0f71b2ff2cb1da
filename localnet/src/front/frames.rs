//! What is changed in the frames of one connection. Pure but for the slots that it looks up.
//!
//! Account data may be large, so only the head and the tail of a notification are read. A frame that does not look as
//! expected passes as it is.

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};
use solana_pubkey::Pubkey;

use super::slots::AccountSlots;

/// Subscriptions of one connection that are kept in mind; what comes on top passes as it is.
const SUBSCRIPTIONS_MAX: usize = 4_096;
/// Where a notification says what it is, and in which context.
const HEAD_BYTES: usize = 256;
/// Answers to subscriptions are smaller by far, also several of them in one frame.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// It goes on unchanged.
    AsIs,
    /// This goes on instead.
    Mended(String),
    /// Nothing goes on.
    Dropped,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Account(Pubkey),
    Programs,
    /// With the last one that was told.
    Roots(Option<u64>),
}

/// What one connection has asked for.
pub(super) struct Book {
    slots: Arc<AccountSlots>,
    /// By the request's id.
    asked: HashMap<String, Subject>,
    /// By the subscription's id.
    taken: HashMap<u64, Subject>,
}

impl Book {
    pub(super) fn new(slots: Arc<AccountSlots>) -> Self {
        Self { slots, asked: HashMap::new(), taken: HashMap::new() }
    }

    /// Looks at a client's frame.
    pub(super) fn client_said(&mut self, text: &str) -> Passed {
        if !text.contains("ubscribe\"") {
            return Passed::AsIs;
        }
        let Ok(mut frame) = serde_json::from_str::<Value>(text) else { return Passed::AsIs };
        let calls = match &mut frame {
            Value::Array(calls) => calls.as_mut_slice(),
            call => std::slice::from_mut(call),
        };
        let mut changed = false;
        for call in calls {
            changed |= self.note(call);
        }
        if changed { Passed::Mended(frame.to_string()) } else { Passed::AsIs }
    }

    /// Notes what a call subscribes to. True if the call was changed.
    fn note(&mut self, call: &mut Value) -> bool {
        let first = call["params"][0].clone();
        let subject = match call["method"].as_str() {
            Some("accountSubscribe") => first.as_str().and_then(|key| Pubkey::from_str(key).ok()).map(Subject::Account),
            Some("programSubscribe") => Some(Subject::Programs),
            Some("rootSubscribe") => Some(Subject::Roots(None)),
            Some("accountUnsubscribe" | "programUnsubscribe" | "slotUnsubscribe") => {
                first.as_u64().map(|id| self.taken.remove(&id));
                None
            }
            Some("rootUnsubscribe") => {
                first.as_u64().map(|id| self.taken.remove(&id));
                call["method"] = json!("slotUnsubscribe");
                return true;
            }
            _ => None,
        };
        let Some(subject) = subject else { return false };
        if self.asked.len() + self.taken.len() >= SUBSCRIPTIONS_MAX {
            return false;
        }
        self.asked.insert(call["id"].to_string(), subject);
        // The engine tells of a root with each slot.
        let roots = matches!(subject, Subject::Roots(_));
        if roots {
            call["method"] = json!("slotSubscribe");
            call["params"] = json!([]);
        }
        roots
    }

    /// Looks at the engine's frame.
    pub(super) fn engine_said(&mut self, text: &str) -> Passed {
        let head = text.get(..HEAD_BYTES).unwrap_or(text);
        if head.contains("\"method\":\"accountNotification\"") || head.contains("\"method\":\"programNotification\"") {
            self.stamp(text, head).map_or(Passed::AsIs, Passed::Mended)
        } else if head.contains("\"method\":\"slotNotification\"") {
            self.root(text)
        } else if !self.asked.is_empty() && !head.contains("\"method\":") && text.len() <= ANSWER_BYTES_MAX {
            self.answered(text);
            Passed::AsIs
        } else {
            Passed::AsIs
        }
    }

    /// The notification with the slot of the account's last change, where that is later than the one in it.
    fn stamp(&self, text: &str, head: &str) -> Option<String> {
        let number = number_after(head, "\"slot\":", head.find("\"context\":")?)?;
        // An account's data has no quotation marks in it, or escapes them: what is found last belongs to the frame.
        let id = number_after(text, "\"subscription\":", text.rfind("\"subscription\":")?)?;
        let account = match self.taken.get(&text[id].parse().ok()?)? {
            Subject::Account(account) => *account,
            Subject::Programs => {
                let (_, after) = text.split_at(text.rfind("\"pubkey\":\"")?);
                Pubkey::from_str(after.split('"').nth(3)?).ok()?
            }
            Subject::Roots(_) => return None,
        };
        let changed = self.slots.of(&account)?;
        let stamped: u64 = text[number.clone()].parse().ok()?;
        (changed > stamped).then(|| format!("{}{changed}{}", &text[..number.start], &text[number.end..]))
    }

    /// What a slot means for one who wants to hear of roots.
    fn root(&mut self, text: &str) -> Passed {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return Passed::AsIs };
        let params = &frame["params"];
        let (Some(id), Some(root)) = (params["subscription"].as_u64(), params["result"]["root"].as_u64()) else {
            return Passed::AsIs;
        };
        let Some(Subject::Roots(told)) = self.taken.get_mut(&id) else { return Passed::AsIs };
        if told.is_some_and(|told| told >= root) {
            return Passed::Dropped;
        }
        *told = Some(root);
        let params = json!({ "result": root, "subscription": id });
        Passed::Mended(json!({ "jsonrpc": "2.0", "method": "rootNotification", "params": params }).to_string())
    }

    /// Notes the ids of subscriptions that were taken.
    fn answered(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        let answers = frame.as_array().map_or(std::slice::from_ref(&frame), Vec::as_slice);
        for answer in answers {
            if let Some(subject) = self.asked.remove(&answer["id"].to_string())
                && let Some(id) = answer["result"].as_u64()
            {
                self.taken.insert(id, subject);
            }
        }
    }
}

/// Where the digits are that follow the first `name` at or after `from`.
fn number_after(text: &str, name: &str, from: usize) -> Option<Range<usize>> {
    let start = from + text.get(from..)?.find(name)? + name.len();
    let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then_some(start..start + digits)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
