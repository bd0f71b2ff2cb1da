#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use surfpool_core::surfnet::GeyserEvent;
use surfpool_core::types::GeyserAccountUpdate;

use super::*;

const KEY: &str = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin";

fn book(changes: &[u64]) -> Book {
    let (engine, events) = crossbeam_channel::bounded(changes.len());
    for slot in changes {
        let update = GeyserAccountUpdate::block_update(Pubkey::from_str(KEY).unwrap(), Default::default(), *slot, 0);
        engine.send(GeyserEvent::UpdateAccount(update)).unwrap();
    }
    Book::new(Arc::new(AccountSlots::between(events).0))
}

fn subscribed(book: &mut Book, method: &str, subscription: u64) -> Passed {
    let call = json!({ "jsonrpc": "2.0", "id": "a-7", "method": method, "params": [KEY, { "encoding": "base64" }] });
    let passed = book.client_said(&call.to_string());
    let answer = json!({ "jsonrpc": "2.0", "result": subscription, "id": "a-7" });
    assert_eq!(book.engine_said(&answer.to_string()), Passed::AsIs);
    passed
}

fn notification(method: &str, slot: u64, value: &Value, subscription: u64) -> String {
    let result = json!({ "context": { "apiVersion": "4.2.2", "slot": slot }, "value": value });
    json!({ "jsonrpc": "2.0", "method": method, "params": { "result": result, "subscription": subscription } }).to_string()
}

#[test]
fn an_account_notification_carries_the_slot_of_the_account_s_last_change() {
    let mut book = book(&[40, 77]);
    assert_eq!(subscribed(&mut book, "accountSubscribe", 3), Passed::AsIs);
    let value = json!({ "lamports": 1, "data": ["\"slot\":1,\"subscription\":9".repeat(99), "base64"] });
    let at = |slot| notification("accountNotification", slot, &value, 3);
    assert_eq!(book.engine_said(&at(12)), Passed::Mended(at(77)));
    assert_eq!(book.engine_said(&at(78)), Passed::AsIs, "what is later already stays");
    let other = notification("accountNotification", 12, &value, 4);
    assert_eq!(book.engine_said(&other), Passed::AsIs, "of another subscription nothing is known");
}

#[test]
fn a_program_notification_carries_the_slot_of_its_account() {
    let mut book = book(&[77]);
    subscribed(&mut book, "programSubscribe", 3);
    let at = |slot, key| notification("programNotification", slot, &json!({ "account": { "data": "" }, "pubkey": key }), 3);
    assert_eq!(book.engine_said(&at(12, KEY)), Passed::Mended(at(77, KEY)));
    let unknown = Pubkey::new_from_array([5; 32]).to_string();
    assert_eq!(book.engine_said(&at(12, &unknown)), Passed::AsIs);
}

#[test]
fn roots_come_out_of_slots_each_once() {
    let mut book = book(&[]);
    let Passed::Mended(call) = subscribed(&mut book, "rootSubscribe", 5) else { panic!("passed as it is") };
    let call: Value = serde_json::from_str(&call).unwrap();
    assert_eq!((&call["method"], &call["id"], &call["params"]), (&json!("slotSubscribe"), &json!("a-7"), &json!([])));
    let slot = |root, id| {
        let result = json!({ "parent": 40, "root": root, "slot": 41 });
        json!({ "jsonrpc": "2.0", "method": "slotNotification", "params": { "result": result, "subscription": id } })
            .to_string()
    };
    let told = |root| {
        let params = json!({ "result": root, "subscription": 5 });
        Passed::Mended(json!({ "jsonrpc": "2.0", "method": "rootNotification", "params": params }).to_string())
    };
    assert_eq!(book.engine_said(&slot(9, 5)), told(9));
    assert_eq!(book.engine_said(&slot(9, 5)), Passed::Dropped);
    assert_eq!(book.engine_said(&slot(10, 5)), told(10));
    assert_eq!(book.engine_said(&slot(10, 6)), Passed::AsIs, "another's slots stay slots");
    let left = book.client_said(r#"{"jsonrpc":"2.0","id":8,"method":"rootUnsubscribe","params":[5]}"#);
    assert!(matches!(left, Passed::Mended(call) if call.contains("slotUnsubscribe")));
    assert_eq!(book.engine_said(&slot(11, 5)), Passed::AsIs);
}

#[test]
fn calls_in_one_frame_are_told_apart() {
    let mut book = book(&[77]);
    let call = |id: u64, method| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": [KEY] });
    let frame = json!([call(1, "accountSubscribe"), call(2, "rootSubscribe"), call(3, "slotSubscribe")]);
    let Passed::Mended(frame) = book.client_said(&frame.to_string()) else { panic!("passed as it is") };
    assert_eq!(frame.matches("slotSubscribe").count(), 2);
    let answers = json!([{ "id": 2, "result": 11 }, { "id": 1, "result": 10 }, { "id": 3, "result": 12 }]);
    assert_eq!(book.engine_said(&answers.to_string()), Passed::AsIs);
    let at = |slot| notification("accountNotification", slot, &json!({}), 10);
    assert_eq!(book.engine_said(&at(1)), Passed::Mended(at(77)));
}

#[test]
fn frames_that_nobody_expects_pass_as_they_are() {
    let mut book = book(&[77]);
    subscribed(&mut book, "accountSubscribe", 3);
    for text in [
        "",
        "not json, but \"accountSubscribe\"",
        "[]",
        "null",
        r#"{"method":"accountSubscribe"}"#,
        r#"{"method":"accountSubscribe","params":["no key"],"id":1}"#,
        r#"{"method":"accountNotification"}"#,
        r#"{"method":"accountNotification","params":{"result":{"context":{"slot":"x"}},"subscription":3}}"#,
        r#"{"method":"accountNotification","params":{"result":{"context":{"slot":99999999999999999999999}},"subscription":3}}"#,
        r#"{"method":"slotNotification","params":{"subscription":3}}"#,
        r#"{"method":"unsubscribe","params":{}}"#,
        "ключ ключ ключ",
    ] {
        assert_eq!(book.client_said(text), Passed::AsIs, "{text}");
        assert_eq!(book.engine_said(text), Passed::AsIs, "{text}");
    }
}

#[test]
fn subscriptions_without_end_are_not_kept_without_end() {
    let mut book = book(&[77]);
    for id in 0..2 * SUBSCRIPTIONS_MAX {
        book.client_said(&json!({ "id": id, "method": "accountSubscribe", "params": [KEY] }).to_string());
    }
    assert_eq!(book.asked.len(), SUBSCRIPTIONS_MAX);
}
