//! The target's side of a comparison: which keys this node has otherwise than another.
//!
//! Owns: looking at them. Does not own: what a digest covers (see [`crate::storage::digest`]).

use crate::actors::batches::tenant_of;
use crate::actors::refusal::Refusal;
use crate::actors::requests::Requests;
use crate::actors::trail;
use crate::storage::digest::digest;
use crate::storage::key::Key;
use std::sync::Arc;
use tokio::time::Instant;

impl Requests {
    /// The places of those keys whose digest is another here, past the cache, which is for those who read. What is damaged
    /// here differs.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] when its turn among the reads of tables does not come, [`Refusal::ShuttingDown`].
    pub async fn differing(&self, keys: Vec<(Key, u64)>) -> Result<Vec<u32>, Refusal> {
        trail::received(tenant_of(keys.iter().map(|(key, _)| key)));
        self.check_admissible()?;
        let (queued, limit) = (Instant::now(), self.timeouts.read);
        let turn = tokio::time::timeout(limit, Arc::clone(&self.loads).acquire_owned());
        let permit = turn.await.map_err(|_elapsed| Refusal::TimedOut(limit))?;
        let published = Arc::clone(&self.handles.published);
        let look = trail::as_hop(trail::WALK, queued, move || {
            let _permit = permit;
            let view = published.load();
            let differs = |(key, other): &(Key, u64)| view.get(key).map_or(true, |here| digest(&here) != *other);
            let places = (0_u32..).zip(&keys).filter(|(_, key)| differs(key));
            places.map(|(place, _)| place).collect()
        });
        let looked = tokio::task::spawn_blocking(look).await;
        trail::resumed();
        looked.map_err(|panicked| Refusal::Internal(format!("the comparison failed: {panicked}")))
    }
}
