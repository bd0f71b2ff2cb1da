#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use proptest::prelude::*;

use super::*;

#[test]
fn the_system_program_is_32_ones() {
    let zero = Address([0; 32]);
    assert_eq!(zero.to_string(), "1".repeat(32));
    assert_eq!("1".repeat(32).parse::<Address>(), Ok(zero));
}

#[test]
fn addresses_of_another_length_are_refused() {
    assert_eq!("".parse::<Address>(), Err(IdError::Address));
    assert_eq!("1".repeat(31).parse::<Address>(), Err(IdError::Address));
    assert_eq!("1".repeat(33).parse::<Address>(), Err(IdError::Address));
    assert_eq!("0OIl".parse::<Address>(), Err(IdError::Address));
}

#[test]
fn an_interval_that_ends_before_it_starts_is_refused_even_from_json() {
    assert_eq!(BatchInterval::new(3, 2), Err(IdError::Interval { start: 3, end: 2 }));
    assert!(serde_json::from_str::<BatchInterval>(r#"{"start":3,"end":2}"#).is_err());
    assert_eq!(BatchInterval::new(3, 3).unwrap().samples(), 1);
}

#[test]
fn run_ids_have_1_to_32_bytes() {
    assert!("r".repeat(32).parse::<RunId>().is_ok());
    assert_eq!("r".repeat(33).parse::<RunId>(), Err(IdError::RunId { length: 33 }));
    assert_eq!("".parse::<RunId>(), Err(IdError::RunId { length: 0 }));
}

proptest! {
    #[test]
    fn prop_addresses_survive_text_and_json(bytes: [u8; 32]) {
        let address = Address(bytes);
        prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        let json = serde_json::to_string(&address).unwrap();
        prop_assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }

    #[test]
    fn prop_no_text_makes_the_parsers_panic(text: String) {
        let _address = text.parse::<Address>();
        let _hash = text.parse::<BlobHash>();
        let _run = text.parse::<RunId>();
    }
}

#[test]
fn lamports_are_told_in_sol_without_rounding() {
    let told = [(0, "0"), (1, "0.000000001"), (10, "0.00000001"), (1_000_000_000, "1"), (12_500_000_000, "12.5")];
    for (lamports, sol) in told {
        assert_eq!(Lamports(lamports).in_sol(), sol);
    }
    assert_eq!(Lamports(u64::MAX).in_sol(), "18446744073.709551615");
}
