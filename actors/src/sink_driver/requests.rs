//! What is asked of the driver while it runs, beside commits: other sinks, and an end in order.

use std::sync::Arc;

use actix::{Handler, Message, ResponseActFuture, WrapFuture};
use livelake_dataflow::plan::RelationId;
use livelake_sinks::TableDrop;

use super::SinkDriver;
use crate::lake::store::SinkPlan;
use crate::service::LakeError;

/// Wait until files that nobody reaches any more are deleted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

impl Handler<Settle> for SinkDriver {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Settle, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        let work = async move { state.lock().await.store.tables.settle().await };
        Box::pin(work.into_actor(self))
    }
}

/// Follow one more relation, or stop following those of a table.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), LakeError>")]
pub enum ChangeSinks {
    /// A new table.
    Add(SinkPlan),
    /// No more changes of this relation go to any table.
    Remove(RelationId),
    /// Nothing more goes to this table.
    RemoveTable(String),
}

impl Handler<ChangeSinks> for SinkDriver {
    type Result = ResponseActFuture<Self, Result<(), LakeError>>;

    fn handle(&mut self, change: ChangeSinks, _: &mut Self::Context) -> Self::Result {
        let state = Arc::clone(&self.state);
        let work = async move {
            let mut driver = state.lock().await;
            match change {
                ChangeSinks::Add(plan) => {
                    driver.drops.retain(|drop| drop.table != plan.table);
                    driver.add(plan, false)?;
                    // a table of that name may be there from an earlier time
                    if let Some(outlet) = driver.outlets.last_mut() {
                        outlet.compare = true;
                    }
                    Ok(())
                }
                ChangeSinks::Remove(relation) => {
                    driver.remove(|outlet| outlet.plan.relation == relation);
                    Ok(())
                }
                ChangeSinks::RemoveTable(table) => {
                    let gone =
                        driver.outlets.iter().filter(|outlet| outlet.plan.table.to_string() == table && outlet.plan.derived);
                    let gone: Vec<_> = gone.map(|outlet| TableDrop { table: outlet.plan.table.clone(), purge: false }).collect();
                    driver.drops.extend(gone);
                    driver.remove(|outlet| outlet.plan.table.to_string() == table);
                    Ok(())
                }
            }
        };
        Box::pin(work.into_actor(self))
    }
}
