//! Where rows come from.

pub mod generator;
