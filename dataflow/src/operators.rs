//! The operators, one family a file.

pub mod arrange;
pub mod backlog;
pub mod below_zero;
pub mod combine;
pub mod distribute;
pub mod each_group;
pub mod errors;
pub mod flat_map;
pub mod group;
pub mod join;
pub mod map;
pub mod reduce;
pub mod temporal;
pub mod top_of_inserts;
pub mod topk;
pub mod upsert;
pub mod window;
