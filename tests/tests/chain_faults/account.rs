//! Changes of the run's account that its counter does not tell.
