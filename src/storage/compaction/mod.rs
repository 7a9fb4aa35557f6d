//! Compaction: keeps the number of tables that a read asks small, and the space of what was overwritten in bounds.
//!
//! Levelled (O'Neil et al. 1996, as LevelDB has it): L0 takes flushed memtables; a due level is merged into the one below,
//! table by table. [`pick`] chooses, [`job`] carries out, [`debt`] measures how far behind it is, [`throttle`] leaves the disk to
//! others, and [`jobs`] keeps the jobs apart and visible. Since the merge of versions does not care about order, any tables may
//! be merged with any others; the levels exist for the reads.
//!
//! Owns: all of that, for whoever gives it a thread. Does not own: threads, or when to look for work.

pub mod debt;
pub mod job;
pub mod jobs;
pub mod pick;
pub mod throttle;
