#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;

#[test]
fn a_precision_reads_as_it_is_written() {
    for precision in [Precision::F32, Precision::Bf16] {
        assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        assert_eq!(precision.bytes(), precision.kind().elt_size_in_bytes());
    }
    let error = "f16".parse::<Precision>().unwrap_err();
    assert_eq!(error.to_string(), "read precision \"f16\": must be f32 or bf16");
}
