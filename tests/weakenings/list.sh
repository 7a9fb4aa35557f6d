# The weakenings: name, test, and then file, text and what it becomes, once or more. See run.sh.

log=src/storage/log
tables=src/storage/table
store=src/storage/store
compaction=src/storage/compaction

# Syncs of bytes.

weaken answer_before_the_log_is_synced crash_states $store/commit.rs \
    'log.sync(self.epoch)?;' \
    ''
weaken log_batch_not_synced crash_states $log/writer.rs \
    'if let Err(source) = open.file.sync() {' \
    'if let Err(source) = std::io::Result::Ok(()) {'
weaken segment_header_not_synced_before_rename crash_states $log/writer.rs \
    '.and_then(|()| file.sync().map_err(|e| self.latch(&temporary, e)))' \
    ''
weaken table_not_synced_before_rename crash_states $tables/builder.rs \
    'self.file.sync().map_err(|e| Error::io("sync", &self.temporary, e))?;' \
    ''
weaken failed_write_out_ignored damage $tables/builder.rs \
    '.map_err(|e| Error::io("write out", &self.temporary, e))?;' \
    '.unwrap_or_default();'
weaken manifest_edit_not_synced crash_states src/storage/manifest.rs \
    'file.sync().map_err(|e| Error::io("sync", path, e))?;' \
    ''
weaken manifest_not_synced_before_rename crash_states src/storage/manifest.rs \
    'file.sync().map_err(|e| Error::io("sync", &temporary, e))?;' \
    ''
weaken recovery_does_not_sync_the_tail_it_believes crash_states src/storage/log/upkeep.rs \
    'file.sync().map_err(|e| Error::io("sync", path, e))' \
    'drop(file); Ok(())'

# Syncs of names.

group supervision
weaken new_segment_without_sync_of_its_directory crash_states $log/writer.rs \
    'self.fs.sync_dir(&dir).map_err(|e| self.latch(&dir, e))?;' \
    'let _ = dir;'
group
weaken table_without_sync_of_its_directory crash_states $tables/builder.rs \
    'self.fs.sync_dir(self.dir).map_err(|e| Error::io("sync", self.dir, e))?;' \
    ''
weaken manifest_without_sync_of_its_directory crash_states src/storage/manifest.rs \
    'fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;' \
    ''
weaken directories_above_not_synced crash_states src/storage/fs/durable.rs \
    'dir.ancestors().skip(1)' \
    'dir.ancestors().skip(1).take(1)'

# Order, and what a recovery must forgive.

weaken segments_deleted_before_the_table_is_recorded crash_states src/storage/store/mod.rs \
    'let flushed = self.tables.flush(&oldest, &self.published);' \
    'self.log.lock().set_flushed(oldest.max_seq());
        upkeep::delete_flushed(&self.log)?;
        let flushed = self.tables.flush(&oldest, &self.published);'
weaken log_goes_on_after_a_failed_sync crash_states src/storage/log/writer.rs \
    'return Err(self.fail_to_sync(&segment, source));' \
    'return Err(Error::io("sync", &segment, source));'
weaken what_a_dead_writer_left_is_only_synced crash_states src/storage/log/upkeep.rs \
    'for mapped in segment.bytes(from, to).chunks(REWRITTEN_AT_ONCE) {' \
    'for mapped in segment.bytes(from, from).chunks(REWRITTEN_AT_ONCE) {'
weaken directories_whose_sync_failed_stay crash_states src/storage/fs/durable.rs \
    'for dir in made.iter().rev() {' \
    'for dir in made.iter().rev().take(0) {'
weaken gap_of_flushed_segments_is_damage crash_states src/storage/recovery.rs \
    'sweep_flushed(fs.as_ref(), &mut segments, flushed)?;' \
    'let _ = sweep_flushed;'
weaken torn_edit_of_the_manifest_is_damage crash_states src/storage/manifest.rs \
    'if readable_behind || at == FRAME_BYTES {' \
    'if readable_behind || at >= FRAME_BYTES {'
weaken hole_in_the_last_batch_is_damage crash_states $log/reader.rs \
    'Some(next) if !has_hole(bytes, at, next) =>' \
    'Some(_) =>'
weaken leftover_of_a_manifest_is_not_replaced crash_states src/storage/manifest.rs \
    'let _ = fs.remove(&temporary);' \
    ''

# After a failure.

weaken manifest_goes_on_after_a_failed_append crash_states src/storage/manifest.rs \
    'match self.file.take() {
            Some(file) => self.append(&path, edit, file)?,
            None => self.go_on_in(write(self.fs.as_ref(), &self.dir, &next)?),
        }' \
    'let written = match self.file.take() {
            Some(file) => self.append(&path, edit, file),
            None => write(self.fs.as_ref(), &self.dir, &next).map(|written| self.go_on_in(written)),
        };' \
    src/storage/manifest.rs \
    '        self.state = next;
        Ok(())' \
    '        self.state = next;
        written'

# Checks.

weaken record_checksum_not_checked damage $log/record.rs \
    'if crc32c::crc32c_append(salt, covered) != checksum {' \
    'if crc32c::crc32c_append(salt, covered) != checksum && salt == 0 {'
weaken damage_before_the_last_mark_taken_for_a_tear damage $log/reader.rs \
    'record.durable().is_some_and(|durable| durable > at as u64)' \
    'record.durable().is_some_and(|durable| durable > at as u64 && at == 0)'
weaken length_in_the_next_header_ignored damage src/storage/recovery.rs \
    'let expected = next.map(|next| next.previous_len);' \
    'let expected = None;'
weaken missing_segment_not_noticed damage src/storage/recovery.rs \
    'next.filter(|next| next.id != segment.id + 1)' \
    'next.filter(|next| next.id == segment.id)'
weaken block_checksum_not_checked damage $tables/block.rs \
    'if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {' \
    'if covered.is_empty() && u32::from_le_bytes(*checksum) == 0 {'
weaken manifest_checksum_not_checked damage src/storage/manifest.rs \
    '(crc32c::crc32c(covered) == checksum).then_some(' \
    '(!covered.is_empty() || checksum == 0).then_some('
weaken header_checksum_not_checked damage src/storage/codec.rs \
    'if checksum != Some(crc32c::crc32c(covered)) {' \
    'if checksum.is_none() && covered.is_empty() {'

# Group commit.

weaken failed_sync_of_a_batch_is_answered_as_done damage $store/commit.rs \
    'log.sync(self.epoch)?;' \
    'let _ = log.sync(self.epoch);'

# Compaction: order, and what a failure may leave.

weaken inputs_deleted_before_the_manifest_is_recorded crash_states src/storage/tables.rs \
    'manifest.record(&Edit {' \
    'for table in before.tables.all() {
            let moved = change.added.iter().any(|(_, added)| added.id() == table.id());
            if change.removed.contains(&table.id()) && !moved {
                let _ = self.fs.remove(table.path());
            }
        }
        manifest.record(&Edit {'
weaken outputs_deleted_although_the_manifest_may_name_them crash_states $compaction/job.rs \
    'context.tables.install_compacted(&change, context.published)?;
    Ok(Outcome {
        bytes_read' \
    'if let Err(error) = context.tables.install_compacted(&change, context.published) {
        for output in outputs {
            context.tables.discard(output);
        }
        return Err(error);
    }
    Ok(Outcome {
        bytes_read'
weaken table_of_a_flush_deleted_although_the_manifest_may_name_it crash_states src/storage/tables.rs \
    '*self.unrecorded.lock() = table.map(|table| (memtable.id(), table));' \
    'if let Some(table) = table {
                self.discard(table);
            }'
weaken sweep_before_the_manifest_is_settled crash_states src/storage/tables.rs \
    'manifest.settle()?;' \
    ''
weaken sweep_ignores_reservations compaction src/storage/tables.rs \
    'if !named && !reserved.contains(&id) && !read.contains(&id) {' \
    'if !named && !read.contains(&id) {'
weaken sweep_ignores_what_is_read compaction src/storage/tables.rs \
    'if !named && !reserved.contains(&id) && !read.contains(&id) {' \
    'if !named && !reserved.contains(&id) {'
weaken garbage_collected_while_it_is_read compaction src/storage/tables.rs \
    'let read = Arc::strong_count(table) > 1;' \
    'let read = false;'
weaken numbers_of_tables_used_again_after_a_start compaction src/storage/manifest.rs \
    'next_id: self.next_id,' \
    'next_id: 0,'
weaken two_jobs_take_the_same_table compaction $compaction/jobs.rs \
    'busy: &|id| registry.claimed.contains_key(&id),' \
    'busy: &|id| registry.claimed.contains_key(&id) && id == 0,'

# Compaction: what a key has.

weaken versions_of_the_first_run_alone store_model $compaction/job.rs \
    'let versions = merger.versions()?.bounded(MAX_SIBLINGS).0;' \
    'let versions = cursor.versions()?.bounded(MAX_SIBLINGS).0;'
weaken entry_copied_although_two_runs_have_its_key store_model $compaction/job.rs \
    'Some(seq) if alone => self' \
    'Some(seq) => self'
weaken levels_overlap store_model src/storage/levels.rs \
    'Some((a, b)) => Err(format!("tables {} and {} of L{level} overlap", a.id(), b.id())),
        None => Ok(()),' \
    'Some(_) if level > LEVELS => Err(String::new()),
        _ => Ok(()),' \
    $compaction/pick.rs \
    'let lower: Vec<_> = overlapping(set, level + 1, first, last).cloned().collect();' \
    'let lower: Vec<_> = overlapping(set, level + 1, first, last).skip(1).cloned().collect();'
weaken overlap_of_l0_with_l1_not_seen store_model $compaction/pick.rs \
    'let lower: Vec<_> = overlapping(set, 1, first, last).cloned().collect();' \
    'let lower: Vec<_> = overlapping(set, 1, first, last).skip(1).cloned().collect();'

# Compaction: the end of tombstones.

weaken tombstone_dropped_before_its_grace compaction $compaction/job.rs \
    'v.value.live().is_none() && v.timestamp_ms.saturating_add(grace_ms) <= context.now_ms' \
    'v.value.live().is_none() && v.timestamp_ms <= context.now_ms.max(grace_ms)'
weaken tombstone_dropped_although_a_table_may_hold_what_it_hides compaction $compaction/job.rs \
    '!elsewhere && view.get_in_memory(&stored).is_empty()' \
    'view.get_in_memory(&stored).is_empty()'
weaken tombstone_dropped_although_a_memtable_may_hold_what_it_hides compaction $compaction/job.rs \
    '!elsewhere && view.get_in_memory(&stored).is_empty()' \
    '!elsewhere'
weaken tombstone_dropped_although_a_damaged_table_may_hold_what_it_hides compaction src/storage/levels.rs \
    'in_quarantine
            || self' \
    'in_quarantine && self.quarantine.is_empty()
            || self'

# Compaction: damage.

weaken block_checksum_not_verified_in_a_merge compaction $tables/cursor.rs \
    'match table.block_copy(self.next_block, self.verifying)? {' \
    'match table.block_copy(self.next_block, false)? {'
weaken block_verified_in_a_merge_only_when_read_for_the_first_time compaction src/storage/table/reader.rs \
    'if again || verified' \
    'if verified'
weaken damage_of_a_run_taken_for_its_end compaction src/storage/merger.rs \
    'self.damage.get_or_insert(error);' \
    'drop(error);'
weaken damaged_table_not_set_aside compaction src/storage/tables.rs \
    '.filter(|table| table.is_damaged())' \
    '.filter(|table| table.is_damaged() && table.size() == 0)'
weaken unreadable_table_not_set_aside_at_a_start compaction src/storage/reopen.rs \
    'Error::Corruption { .. } => error.to_string(),' \
    ''
weaken missing_table_refuses_the_start lost_tables src/storage/reopen.rs \
    'if source.kind() == io::ErrorKind::NotFound =>' \
    'if source.kind() == io::ErrorKind::AlreadyExists =>'
weaken missing_table_of_unknown_range_passed_over lost_tables src/storage/reopen.rs \
    'if record.last_key.is_empty() {
        let detail' \
    'if record.last_key.len() > 1 << 20 {
        let detail'
weaken damaged_table_put_back_unchecked compaction src/storage/reopen.rs \
    'damage = table.check(|_| Ok(()))?.damage.into_iter().next();' \
    ''

# Compaction: what does not keep up.

weaken l0_without_a_bound debt $compaction/debt.rs \
    'if self.l0_tables > most {' \
    'if self.l0_tables / 2 > most {'
weaken deletes_refused_with_writes debt $compaction/debt.rs \
    'const L0_MOST_FOR_DELETES: usize = 2;' \
    'const L0_MOST_FOR_DELETES: usize = 1;'
weaken deletes_without_a_bound debt $compaction/debt.rs \
    'if self.l0_tables > most {' \
    'if self.l0_tables > most && !is_delete {'
weaken node_takes_writes_past_the_bound debt src/actors/admission.rs \
    'debt.check_write(deletes_only).is_err()' \
    'debt.check_write(true).is_err()'
weaken node_refuses_deletes_at_the_bound_of_writes debt src/actors/admission.rs \
    'debt.check_write(deletes_only).is_err()' \
    'debt.check_write(false).is_err()'
weaken tables_of_one_size_however_large_the_level debt $compaction/job.rs \
    'level_options().table_bytes(to_bytes)' \
    'level_options().table_bytes(to_bytes.min(1))'
weaken job_that_found_no_space_is_tried_again_as_it_was compaction $compaction/pick.rs \
    '(self.upper.len() / 2).max(LEAST_L0_TABLES)' \
    'self.upper.len().max(LEAST_L0_TABLES)'
weaken jobs_stay_small_when_there_is_space_again compaction $compaction/jobs.rs \
    'Ok(_) => None,' \
    'Ok(_) => return,'

# Pages of a map that cannot be read.

weaken bus_error_ends_the_process mapped src/storage/fs/mapped.rs \
    'if code > 0 && replace_lost(address) {' \
    'if code > 0 && replace_lost(0) {'
weaken each_lost_page_takes_maps_of_its_own mapped src/storage/fs/mapped.rs \
    'slot.met.fetch_add(1, Ordering::SeqCst) < LOST_FOR_THEMSELVES' \
    'slot.met.fetch_add(1, Ordering::SeqCst) < usize::MAX'
weaken rest_of_a_map_lost_without_a_note mapped src/storage/fs/mapped.rs \
    'slot.lost.fetch_min(offset - into_page, Ordering::SeqCst);' \
    'if slot.met.load(Ordering::SeqCst) < LOST_FOR_THEMSELVES {
        slot.lost.fetch_min(offset - into_page, Ordering::SeqCst);
    }'
weaken bus_error_of_others_is_swallowed mapped src/storage/fs/mapped.rs \
    'return false;' \
    'return true;'
weaken block_trusted_after_a_fault_because_it_was_verified_before mapped $tables/reader.rs \
    'self.verify(number, &stored, again || self.faults.first().is_some())?;' \
    'self.verify(number, &stored, again)?;'
weaken read_trusted_during_which_a_page_was_lost mapped $tables/reader.rs \
    'if was_whole && self.faults.first().is_some() {' \
    'if !was_whole && self.faults.first().is_some() {'
weaken page_lost_during_a_replay_passes_for_a_torn_tail mapped $log/reader.rs \
    'self.check_readable()?;' \
    ''
weaken page_lost_after_a_replay_becomes_a_value mapped src/storage/replay.rs \
    '(self.is_readable)()?;
        self.tables.install_l0' \
    'self.tables.install_l0'
weaken page_lost_of_the_manifest_passes_for_a_torn_edit mapped src/storage/manifest.rs \
    'Faults::of(&content).check(&path)?;' \
    ''

# Ranges, draining, copies.

weaken walk_that_sees_what_is_written_after_it_began ranges src/actors/requests.rs \
    'view.scan(&range.first(), self.handles.published.announced())' \
    'view.scan(&range.first(), u64::MAX)'
weaken walk_that_ends_early_passes_for_complete ranges src/actors/ranges.rs \
    'None => self.ended = Some(Err(Refusal::Restarting("the walk over the keys"))),' \
    'None => self.ended = Some(Ok(())),'
weaken drain_mark_not_synced_before_rename drain src/storage/drain_mark.rs \
    'file.sync().map_err(|e| Error::io("sync", &temporary, e))?;' \
    ''
weaken write_taken_while_draining drain src/actors/admission.rs \
    'if self.draining.load(Ordering::SeqCst) {' \
    'if false {'
weaken drain_forgotten_by_a_restart drain src/node/start.rs \
    'drain_mark::load(files.as_ref(), &options.data_dir)?.is_some()' \
    'drain_mark::load(files.as_ref(), &options.data_dir)?.is_none() && false'
weaken copy_without_its_clock replicate src/rpc/peer.rs \
    'value: value.to_vec(),
        vector_clock: Some(clock_to_wire(&version.clock)),' \
    'value: value.to_vec(),
        vector_clock: Some(clock_to_wire(&version.clock)).filter(|_| false),'

# Streams.

streaming=src/actors/streaming
weaken write_not_fed_to_the_taps streaming src/actors/memtable.rs \
    'self.handles.taps.feed(before, published.applied(), &fed);' \
    'self.handles.taps.feed(before, published.applied(), fed.get(1..).unwrap_or_default());'
weaken gap_in_a_tap_not_noticed streaming $streaming/tap.rs \
    'let mut is_complete = kept.fed == before;' \
    'let mut is_complete = kept.fed <= before;'
weaken forward_forgotten_before_it_is_acknowledged streaming $streaming/work.rs \
    'target.put(taken.changes.clone()).await?;' \
    'stream.tap.acknowledge(&taken);
        target.put(taken.changes.clone()).await?;'
weaken tap_without_a_bound streaming $streaming/tap.rs \
    'kept.bytes <= TAP_BYTES && all <= ALL_TAPS_BYTES' \
    'kept.bytes <= TAP_BYTES * 64 && all <= ALL_TAPS_BYTES * 64'
weaken overflow_taken_for_completeness streaming $streaming/work.rs \
    'progress.pass.is_some() || progress.done_seq < stream.tap.acknowledged().0' \
    'progress.pass.is_some() || progress.done_seq == 0'
weaken everything_copied_anew streaming $streaming/copying.rs \
    'Work::Copy { since } => since,' \
    'Work::Copy { since } => since.min(0),'
weaken pass_begun_anew_after_a_restart streaming src/storage/stream_records.rs \
    'record.progress.done_seq = record.progress.done_seq.min(recovered);' \
    'record.progress.pass = None;'
weaken keys_outside_the_ranges_copied streaming $streaming/copying.rs \
    'ranges.contains(ring::place(&key))' \
    '(ranges.contains(ring::place(&key)) || !ranges.is_empty())'
weaken difference_not_sent_again streaming $streaming/copying.rs \
    'entries.retain(|_| place.next().is_some_and(|place| differing.contains(&place)));' \
    'entries.retain(|_| place.next().is_some_and(|place| differing.contains(&place) && place > 4096));'
weaken stream_ordered_again_is_not_compared_again streaming src/actors/streaming/registry.rs \
    'let is_compared = std::mem::take(&mut record.progress.compared);' \
    'let is_compared = record.progress.compared;'
weaken range_that_ends_at_zero_becomes_the_whole_ring streaming src/storage/ring.rs \
    'Self(joined([&*self.0, &other.0].concat()))' \
    'self.0.iter().chain(&other.0).copied().collect()'
weaken stop_does_not_wait_for_forwards streaming src/actors/streaming/mod.rs \
    '&& !settled(&stream).await' \
    '&& stream.state() != StreamState::Completed'
weaken order_not_durable_when_answered streaming $streaming/registry.rs \
    'if stored.as_ref() == Some(&records) {' \
    'if stored.as_ref().is_some_and(|stored| stored.len() < records.len()) {'
weaken merged_siblings_look_old merge src/storage/version.rs \
    'let seq = oldest.0.iter().map(|v| v.seq).fold(best.seq, u64::max);' \
    'let seq = best.seq;'

# Clocks.

weaken twins_taken_for_one_write causality src/storage/version.rs \
    'Causality::Equal if incoming.value == known.value => {' \
    'Causality::Equal => {'
weaken superseded_versions_kept causality src/storage/version.rs \
    'incoming.clock.compare(&known.clock) != Causality::After' \
    'incoming.clock.compare(&known.clock) != Causality::Equal'
weaken concurrent_clocks_taken_for_ordered causality src/storage/clock.rs \
    '(true, true) => Causality::Concurrent' \
    '(true, true) => Causality::After'
weaken merging_siblings_changes_the_winner merge src/storage/version.rs \
    'merged.content_order(winner) == Ordering::Greater' \
    'merged.content_order(winner) == Ordering::Equal'
weaken any_long_clock_accepted grpc src/actors/requests.rs \
    '.count() > 1 {' \
    '.count() > MAX_CLOCK_ENTRIES * 8 {'

# Batches and streams.

weaken reader_of_one_key_refused_with_a_batch batches src/actors/cache.rs \
    '!is_left_out || reader.is_of_batch()' \
    '!is_left_out || !reader.is_of_batch() || is_left_out'
weaken stream_counted_as_one_request batches src/rpc/receiving.rs \
    'request.uri().path() == STREAM' \
    'request.uri().path() == "*"'
weaken stream_without_a_bound batches src/rpc/stream.rs \
    'drop(place);' \
    '' \
    src/rpc/stream.rs \
    'let (node, room, results) = (node.clone(), Arc::clone(room), results.clone());' \
    'drop(place);
        let (node, room, results) = (node.clone(), Arc::clone(room), results.clone());'

# Writes that are sent again.

weaken named_writes_not_held_until_the_log_is_read_back idempotency src/actors/wal/mod.rs \
    'held: Some(Vec::new()),' \
    'held: None,'
weaken lost_writes_stay_under_way idempotency src/actors/wal/mod.rs \
    'self.handles.recent.lock().forget_above(last_seq);' \
    ''
weaken log_deleted_without_keeping_its_names idempotency src/actors/wal/log_thread.rs \
    'if !remembered.is_empty() {' \
    'if remembered.len() > usize::MAX / 2 {'
weaken names_of_flushed_writes_not_read idempotency src/storage/recovery.rs \
    '(record.seq <= flushed && !record.is_named())' \
    'record.seq <= flushed'
weaken answers_not_noted idempotency src/actors/memtable.rs \
    'notes.extend((!is_plain).then_some(remembered));' \
    'notes.extend((is_plain && !is_plain).then_some(remembered));'
weaken refused_write_remembered idempotency src/actors/wal/mod.rs \
    'waiting = self.handles.recent.lock().fail(&name, write.version.seq);' \
    'drop(name);'

# Quotas, and overload.

weaken batch_without_a_quota quotas src/actors/batches.rs \
    'self.quotas.admit_write(write, before)?;' \
    'self.quotas.admit_write(write, before).unwrap_or_default();'
weaken batch_stores_more_than_it_may quotas src/actors/batches.rs \
    'self.quotas.admit_write(write, before)?;' \
    'self.quotas.admit_write(write, 0)?;'
weaken what_is_read_does_not_count quotas src/actors/requests.rs \
    'self.quotas.found(&key, versions);' \
    ''
weaken scan_not_slowed_down quotas src/actors/ranges.rs \
    'if !pause.is_zero() {' \
    'if pause > Duration::MAX {'
weaken deletes_refused_beyond_stored_bytes quotas src/actors/quotas/mod.rs \
    'most > 0 && write.operation != Operation::Delete' \
    'most > 0'
weaken memtables_not_counted_as_stored quotas src/actors/quotas/tenant.rs \
    'known.bytes + view.tenant_memory_bytes(name)' \
    'known.bytes'
weaken tables_of_neighbours_counted quotas src/storage/table/reader.rs \
    'begins(end).saturating_sub(begins(start))' \
    'self.size()'
weaken overloaded_node_lets_all_in quotas src/actors/overload.rs \
    'if under_way <= gauge.limit.load(Ordering::Relaxed) ||' \
    'if under_way <= gauge.limit.load(Ordering::Relaxed).max(MOST) ||'

# Supervision.

group supervision
weaken permit_lost floods src/actors/answers.rs \
    'drop(permit);' \
    'std::mem::forget(permit);'
weaken mailbox_without_a_bound floods src/actors/mailbox.rs \
    'if messages > bound.messages ||' \
    'if messages / 4 > bound.messages ||'
weaken slow_shard_told_without_a_bound floods src/actors/shard.rs \
    'self.mailbox.send_within_half(message, bytes);' \
    'self.mailbox.send_admitted(message);
        let _: usize = bytes;'
weaken shard_that_missed_a_write_keeps_what_it_holds faults src/actors/cache.rs \
    'state.cache = Cache::new(self.options);' \
    ''
weaken room_not_given_back floods src/actors/mailbox.rs \
    'self.used.bytes.fetch_sub(self.bytes, Ordering::AcqRel);' \
    ''
weaken timers_outlive_their_actor leaks src/actors/timers.rs \
    '_ = cell.wait(None) => {}' \
    '_ = cell.wait(None), if std::hint::black_box(false) => {}'
weaken failed_start_not_tried_again status src/actors/supervisor.rs \
    'Err(error) => self.ended(myself, index, format!("it did not start: {error}"), state),' \
    'Err(error) => tracing::error!(%error, name),'
weaken reason_of_a_kill_lost faults src/actors/supervisor.rs \
    'self.condemned.lock().insert(name.to_owned(), reason);' \
    'drop(reason);'
weaken ends_forgotten_with_the_supervisor escalation src/actors/supervisor.rs \
    'self.tree.ended_with_their_parent(|_| true);' \
    'self.tree.ended_with_their_parent(|_| true);
        self.specs
            .iter()
            .for_each(|spec| *spec.restarts.lock() = Restarts::default());'
weaken supervisor_without_an_intensity escalation src/node/start.rs \
    'if ends.len() > intensity.restarts {' \
    'if ends.len() > intensity.restarts.max(1000) {'
weaken nobody_looks_at_the_supervisor escalation src/node/start.rs \
    'self.tree.judge(SUPERVISOR, pulse.busy(), self.stuck_after),' \
    'drop(pulse.busy()),'
weaken start_without_a_pulse escalation src/actors/watched.rs \
    'let _beat = self.pulse.begin_other();
        let _on' \
    'let _on'
weaken panic_of_the_acceptor_not_noticed faults src/actors/gateway.rs \
    'impl<F: Fn()> Drop for Ended<F> {
    fn drop(&mut self) {' \
    'impl<F: Fn()> Drop for Ended<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }'
weaken installations_pass_no_points faults src/storage/tables.rs \
    'watch(installer, moment);' \
    'drop((watch, installer, moment));'
weaken failed_sync_of_a_new_segment_tried_again failed_syncs $log/writer.rs \
    'file.sync().map_err(|e| self.latch(&temporary, e))' \
    'file.sync().map_err(|e| Error::io("sync", &temporary, e))'
weaken failed_sync_of_the_name_of_a_segment_tried_again failed_syncs $log/writer.rs \
    'self.fs.sync_dir(&dir).map_err(|e| self.latch(&dir, e))?;' \
    'self.fs.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;'
weaken drain_mark_left_although_it_failed failed_syncs src/storage/drain_mark.rs \
    'let _ = fs.remove(&path);
        Error' \
    'Error'
weaken failed_backup_left_whole failed_syncs src/storage/backup.rs \
    'let _ = fs.remove(&dir.join(manifest::NAME));' \
    ''
weaken ends_remembered_without_a_bound status src/actors/supervisor.rs \
    'if ends.len() == REMEMBERED_ENDS {' \
    'if ends.len() == usize::MAX {'
weaken stream_restarted_for_ever stream_faults src/actors/restarts.rs \
    'if times > intensity.restarts {' \
    'if times > intensity.restarts.max(1000) {'
weaken stuck_actor_of_a_stream_not_noticed stream_faults src/actors/streaming/streams_actor.rs \
    'self.look(state);' \
    ''
weaken batch_noted_before_it_is_acknowledged stream_faults src/actors/streaming/copying.rs \
    'bytes += size;' \
    'bytes += size;
                if next.is_some() {
                    self.note(next.as_ref());
                }'
weaken batch_noted_before_it_is_acknowledged_and_nothing_compared migration src/actors/streaming/copying.rs \
    'bytes += size;' \
    'bytes += size;
                if next.is_some() {
                    self.note(next.as_ref());
                }' \
    src/actors/streaming/work.rs \
    'if !progress.compared && !is_compared {' \
    'if !progress.compared && !is_compared && progress.done_seq == 0 {'
weaken broken_work_not_gone_on_with stream_faults src/actors/streaming/stream_actor.rs \
    'StreamMessage::Ended(Failed::Broken(why)) => Err(why.into()),' \
    'StreamMessage::Ended(Failed::Broken(why)) => {
                drop(why);
                Ok(())
            }'
weaken fill_after_an_invalidation cache_fills src/actors/cache.rs \
    'load.written = std::mem::take(&mut load.written).merge(written);' \
    'drop(written);'
weaken manifest_ahead_of_the_view_after_a_panic failed_syncs src/storage/manifest.rs \
    '        match self.file.take() {
            Some(file) => self.append(&path, edit, file)?,' \
    '        self.state = next.clone();
        match self.file.take() {
            Some(file) => self.append(&path, edit, file)?,'
weaken read_answered_ahead_of_walks faults src/actors/requests.rs \
    'while newest.is_some_and(|seq| seq > self.handles.published.announced()) {' \
    'while newest.is_some_and(|seq| seq > self.handles.published.applied()) {'
weaken sent_again_with_each_look floods src/actors/wal/mod.rs \
    'if state.sent_again.strong_count() == 0 {' \
    'if state.sent_again.strong_count() < 1_000 {'
weaken latched_log_not_synced lib src/storage/log/writer.rs \
    '        self.sync_open()?;
        self.check_writable(epoch)
    }' \
    '        self.check_writable(epoch)?;
        self.sync_open()
    }'
weaken crash_loop_never_given_up lib src/actors/restarts.rs \
    'if self.unsettled > MOST_UNSETTLED {' \
    'if self.unsettled > 100 * MOST_UNSETTLED {'
weaken outages_of_newcomers_not_counted lib src/cli/chaos/outages.rs \
    'if calls.iter().any(|call| call.by_newcomer) {' \
    'if calls.iter().all(|call| call.by_newcomer) {'
weaken streams_end_where_a_save_hangs stream_faults src/actors/streaming/streams_actor.rs \
    'state.saving = Some(tokio::spawn(async move {
            streams.save().await.unwrap_or_else(unsaved);
        }));' \
    'streams.save().await.unwrap_or_else(unsaved);'
weaken change_of_the_view_by_another_undone models src/storage/published.rs \
    '    pub fn update(&self, change: impl FnMut(&Arc<ReadView>) -> ReadView) {
        self.view.rcu(change);' \
    '    pub fn update(&self, mut change: impl FnMut(&Arc<ReadView>) -> ReadView) {
        let next = change(&self.load());
        self.view.rcu(|_now| next.clone());'
weaken room_freed_twice models src/actors/mailbox.rs \
    'Err(MessagingErr::SendErr(envelope)) => Err(Undelivered::Down(envelope.message)),' \
    'Err(MessagingErr::SendErr(envelope)) => {
                self.used.messages.fetch_sub(1, Ordering::AcqRel);
                Err(Undelivered::Down(envelope.message))
            }'
weaken told_raised_before_it_is_sent models src/actors/shard.rs \
    'let previous = self.told();' \
    'let previous = self.told();
        self.pass_over(last);'
weaken question_of_a_shard_that_missed_a_write_answered models src/actors/shard.rs \
    'if *heard < told {' \
    'if *heard < told.min(0) {'
weaken reply_port_dropped batches src/actors/memtable.rs \
    'waiting.into_iter().chain(answer.caller)' \
    'waiting.into_iter().chain(answer.caller.filter(|_| answer.outcome.applied))'
weaken nothing_sent_again_after_a_restart_of_the_log restarts src/actors/wal/mod.rs \
    'state.ask(Job::ReadBack(self.handles.published.applied(), None))?;' \
    '' \
    src/actors/wal/mod.rs \
    'WalMessage::Resend(applied) => state.ask(Job::ReadBack(applied, None)),' \
    'WalMessage::Resend(_) => Ok(()),'
weaken batch_applied_out_of_order restarts src/actors/memtable.rs \
    'batch.writes.into_iter().enumerate()' \
    'batch.writes.into_iter().rev().enumerate()'
weaken successor_not_made_known restarts src/actors/mailbox.rs \
    'self.address.store(Some(Arc::new(actor)));' \
    'if self.address.load().is_none() {
            self.address.store(Some(Arc::new(actor)));
        }'
weaken callers_of_a_dropped_batch_hang restarts src/actors/memtable.rs \
    'self.ask_for_the_rest();
            return Ok(());' \
    'self.ask_for_the_rest();
            std::mem::forget(batch);
            return Ok(());'
weaken batch_answered_before_it_is_synced faults src/actors/wal/log_thread.rs \
    'self.timed(&times.sync, || log.sync(epoch))' \
    'Ok(())'
weaken cache_that_missed_a_write_answers faults src/actors/requests.rs \
    'message(cache.told())' \
    'message(0)'
weaken stuck_actor_not_killed faults src/actors/supervisor.rs \
    'if !self.kill(name) {' \
    'if name.is_empty() {'

# Between the actors of a whole node, under simulation.

weaken log_thread_answers_before_it_syncs simulation src/actors/wal/log_thread.rs \
    'self.timed(&times.sync, || log.sync(epoch))' \
    'Ok(())'
weaken nothing_is_sent_again_after_a_restart simulation src/actors/wal/mod.rs \
    'if !writes.is_empty() {' \
    'if false {'
weaken writer_of_an_earlier_generation_is_not_fenced_out simulation $log/writer.rs \
    'if epoch != self.epoch || self.ended {' \
    'if self.ended {'
weaken segment_of_a_node_without_sync_of_its_directory simulation $log/writer.rs \
    'self.fs.sync_dir(&dir).map_err(|e| self.latch(&dir, e))?;' \
    'let _ = dir;'
weaken table_of_a_node_without_sync_of_its_directory simulation $tables/builder.rs \
    'self.fs.sync_dir(self.dir).map_err(|e| Error::io("sync", self.dir, e))?;' \
    ''
weaken memtable_applies_across_a_gap simulation src/actors/memtable.rs \
    'if batch.previous_seq > published.applied() {' \
    'if false {'
weaken caches_do_not_learn_what_a_dying_memtable_applied simulation src/actors/memtable.rs \
    'cache.pass_over(published.applied());' \
    'let _ = cache;'
weaken named_writes_are_not_answered_after_a_restart simulation src/actors/memtable.rs \
    'self.answer_the_applied();
' \
    ''
weaken cache_is_not_asked_what_it_was_told simulation src/actors/requests.rs \
    'cache.mailbox.send(message(cache.told()), key' \
    'cache.mailbox.send(message(0), key'
weaken cache_goes_on_with_a_link_missing simulation src/actors/shard.rs \
    'let heard = self.all_up_to(previous);' \
    'let (heard, _) = (Ok(()), previous);'
weaken fill_of_the_cache_pins_what_was_before simulation src/actors/cache.rs \
    'load.written = std::mem::take(&mut load.written).merge(written);' \
    'let _ = (load, written);'
weaken walk_runs_ahead_of_the_caches faults src/actors/requests.rs \
    'view.scan(&range.first(), self.handles.published.announced());' \
    'view.scan(&range.first(), self.handles.published.applied());'
weaken failed_sync_passes_for_a_full_disk damage $log/writer.rs \
    'let error = Error::io("sync", path, std::io::Error::other(source));' \
    'let error = Error::io("sync", path, source);'
weaken a_failed_sync_ahead_is_passed_over failed_syncs src/storage/log/upkeep.rs \
    'let _ = log.lock().fail_to_sync(&segment, error);' \
    'drop(error);'
weaken streams_that_are_found_pass_for_durable lib src/actors/streaming/registry.rs \
    'stored: Mutex::new(records.is_empty().then(Vec::new)),' \
    'stored: Mutex::new(Some(records.clone())),'
weaken a_removal_that_was_not_synced_is_not_made_again failed_syncs src/storage/fs/durable.rs \
    'let _ = fs.create(&stand_in).and_then(|_empty| fs.remove(&stand_in));' \
    'let _ = stand_in;'
weaken successor_of_who_was_killed_is_not_sent_to chaos src/actors/mailbox.rs \
    'self.address.store(Some(Arc::new(actor)));' \
    'if self.address.load().is_none() {
            self.address.store(Some(Arc::new(actor)));
        }'
weaken threads_that_stand_still_are_not_told_of faults src/actors/supervisor.rs \
    'if still > most && !step.is_late {' \
    'if still > most && step.is_late {'
group
# Copies between nodes, and answers that nobody takes.

weaken long_clock_of_a_copy_refused copies src/actors/requests.rs \
    'entries.len() <= MAX_CLOCK_ENTRIES || write.is_copy' \
    'entries.len() <= MAX_CLOCK_ENTRIES'
weaken copy_held_up_by_a_quota copies src/actors/quotas/mod.rs \
    'if write.is_copy {' \
    'if write.is_copy && most == u64::MAX {'
weaken damage_ends_the_copy copies src/storage/table/cursor.rs \
    'Err(error) if self.go_past(&error) => {}' \
    'Err(error) if self.verifying && self.go_past(&error) => {}'
weaken damage_passes_for_completeness copies src/actors/streaming/work.rs \
    'stream.enter(if skipped.is_empty() {' \
    'stream.enter(if skipped.count() < 100 {'
weaken last_notes_refused idempotency src/actors/wal/mod.rs \
    'if state.ended || state.closing.is_some() {' \
    'if state.refuses {'
weaken answers_without_a_bound answers src/actors/answer_room.rs \
    'if own + bytes > most.min(left).max(SURE_BYTES) {' \
    'if own + bytes > most.min(left).max(200 << 20) {'
weaken connections_that_take_nothing_stay answers src/actors/answer_room.rs \
    'now.has_much && takes_nothing' \
    'now.has_much && !takes_nothing'
weaken room_given_back_before_the_answer_is_taken answers src/rpc/stream.rs \
    'hands.add(held);' \
    'drop(held);'

# Who may ask, and reloads.

weaken token_that_nobody_has_lets_in tokens src/rpc/security/guard.rs \
    'shown(request.headers()).filter(|digest| tokens.knows(digest))' \
    'shown(request.headers())'
weaken tenants_token_is_for_everybody tokens src/rpc/security/tokens.rs \
    'grant.is_for_all || grant.tenants.contains(tenant)' \
    'grant.is_for_all || !grant.tenants.is_empty()'
weaken operations_of_a_batch_not_judged tokens src/rpc/batch.rs \
    'rights.to_write(&write)?;' \
    'let _ = rights;'
weaken reads_of_a_stream_not_judged tokens src/rpc/service.rs \
    'rights.to_tenant(key.tenant())?;
        let mut held' \
    'let _ = rights;
        let mut held'
weaken tenant_says_that_its_write_is_a_copy tokens src/rpc/security/rights.rs \
    'if write.is_copy {' \
    'if write.is_copy && write.clock.is_none() {'
weaken node_drained_by_a_tenant tokens src/rpc/service.rs \
    'self.to_all(&request)?;
        drain::drain_node' \
    'drain::drain_node'
weaken client_needs_no_certificate tls src/rpc/security/tls.rs \
    'WebPkiClientVerifier::builder_with_provider(Arc::new(trusted(trust)?), provider());' \
    'WebPkiClientVerifier::builder_with_provider(Arc::new(trusted(trust)?), provider()).allow_unauthenticated();'
weaken bad_certificate_takes_the_old_one_away tls src/rpc/security/slot.rs \
    'make(&contents).map_err(named)?;' \
    'make(&contents).map_err(named).inspect_err(|_| self.current.store(None))?;'
weaken key_that_needs_a_restart_passed_over reload src/node/reload.rs \
    'outcomes.extend(others);' \
    'drop(others);'
weaken pace_of_compaction_stays reload src/node/reload.rs \
    'of.jobs.set_pace(rate(now.compaction.throttle));' \
    'let _ = (of, now);'
weaken pace_of_the_scrub_stays reload src/node/reload.rs \
    'of.scrub.set_rate(rate(now.disk.scrub_throttle));' \
    'let _ = (of, now);'
weaken level_of_logging_stays reload src/node/reload.rs \
    'let set = (of.set_log_level)(now.logging.level.as_str());' \
    'let set: Result<_, String> = Ok((of.jobs.pace(), now));'
weaken what_a_reload_opens_is_not_told reload src/node/reload.rs \
    'self.reloaded.notify_one();
        self.tell_what_is_open(&running);' \
    'self.reloaded.notify_one();'
weaken half_a_greeting_keeps_its_place tls src/rpc/security/incoming.rs \
    'if *left == 0 || bytes == 0 {' \
    'if *left < PREFACE_BYTES || bytes == 0 {'
weaken keys_are_shown_to_everybody quarantine src/rpc/admin/node_status.rs \
    'aside.first_key.clear();' \
    'aside.cause.clear();'
weaken refused_configuration_forgets_what_was_in_force reload src/node/reload.rs \
    '(part.adopt)(&mut running, now);' \
    '*running = now.clone();'

# What is kept of traces, and what is logged.

weaken failed_requests_are_kept_as_others traces src/actors/trail/traces.rs \
    '} else if is_slow || failure.is_some() {
            if limit' \
    '} else if is_slow {
            if limit'
weaken requests_wait_for_the_collector traces src/actors/trail/traces.rs \
    'let is_sent = queue.capacity() > spare' \
    'while queue.capacity() <= spare {
            std::thread::sleep(Duration::from_millis(1));
        }
        let is_sent = queue.capacity() > spare'
weaken sync_told_by_each_of_its_writes traces src/telemetry/spans.rs \
    '&& write.is_first_told()' \
    ''
weaken restart_without_its_request traces src/actors/watched.rs \
    'self.message.context()' \
    'None'
weaken flush_without_its_cause traces src/actors/memtable.rs \
    'causes.filled(view.active.id(), by);' \
    'causes.filled(view.active.id(), by.and(None));'
weaken flush_linked_to_what_nobody_keeps traces src/actors/trail/context.rs \
    'self.sampled.then_some(self)' \
    'Some(self)'
weaken calls_of_other_nodes_without_a_trace traces src/rpc/outgoing.rs \
    'request.metadata_mut().insert(name, value);' \
    'drop((name, value));'
weaken calls_of_other_nodes_say_that_all_is_kept traces src/actors/trail/context.rs \
    'u8::from(self.sampled));' \
    '1);'
weaken operation_left_at_its_deadline_was_cancelled traces src/rpc/trails.rs \
    'given_up(self.timeout, self.arrived.elapsed())' \
    'given_up(None, self.arrived.elapsed())'
weaken read_made_anew_counted_again observability src/actors/requests.rs \
    'self.counts.again(&versions);' \
    'self.counts.read(&versions, Duration::ZERO);'
weaken log_level_kept logs src/telemetry/logs.rs \
    'change.filter.reload(wanted).map_err(|error| error.to_string())?;' \
    'drop(wanted);'
weaken value_logged logs src/actors/requests.rs \
    'trail::received(Some(write.key.tenant()));' \
    'tracing::trace!(value = ?write.value.live(), "a write");
        trail::received(Some(write.key.tenant()));'

# What a person sees.

group looking
weaken history_without_bound history src/actors/history.rs \
    'if ring.len() >= most {' \
    'if ring.len() >= 2 * most {'
weaken samples_of_all_that_ever_was history src/actors/history.rs \
    'rings.last = Some(now);' \
    ''
weaken flushes_are_not_counted observability src/actors/flush.rs \
    'stats.flushes.fetch_add(1, Ordering::Relaxed);' \
    ''
weaken tables_of_compactions_are_not_counted observability src/storage/compaction/jobs.rs \
    'self.table_times.observe(*took);' \
    'let _ = took;'
weaken latched_node_says_that_it_is_ready observability src/http/ready.rs \
    'let latched = health.latched_reason();' \
    'let latched = health.latched_reason().filter(|_| false);'
weaken draining_node_says_that_it_is_ready observability src/http/ready.rs \
    '.chain(health.drain_reason())' \
    ''
weaken node_with_a_full_disk_says_that_it_is_ready observability src/http/ready.rs \
    '.chain(health.disk_stop_reason())' \
    ''
weaken failed_batch_is_logged_without_its_trace logs src/actors/wal/mod.rs \
    'trail::say_at(context_of(&batch.writes), || {' \
    'trail::say_at(None, || {'
weaken end_of_an_actor_is_logged_without_its_trace logs src/actors/supervisor.rs \
    'trail::say_at(at_request, || {' \
    'trail::say_at(None, || {'
weaken failed_flush_is_logged_without_its_trace logs src/actors/flush.rs \
    'tokio::spawn(trail::as_work(context, flush));' \
    'let _ = context; tokio::spawn(flush);'
weaken page_takes_text_for_html page src/http/page/dom.js \
    'if (element.textContent !== said) element.textContent = said;' \
    'if (element.textContent !== said) element.innerHTML = said;'
weaken page_may_ask_anybody page src/http/page.rs \
    "connect-src 'self'" \
    'connect-src *'
weaken page_reads_what_no_node_says page src/http/page/parts.js \
    'restarted(actor.restarts),' \
    'restarted(actor.restart),'
weaken top_leaves_the_terminal_raw top src/cli/top/terminal.rs \
    'let _ = tcsetattr(stdin(), OptionalActions::Flush, before);' \
    'let _ = before;'
weaken status_shows_every_stream lib src/cli/status/text.rs \
    'ill.into_iter().chain(well).take(SHOWN_STREAMS)' \
    'ill.into_iter().chain(well)'
weaken requests_wait_for_who_reads_the_log logs src/telemetry/logs.rs \
    '.lossy(true)' \
    '.lossy(false)'
weaken lines_are_dropped_without_a_word logs src/http/metrics/machine.rs \
    'telemetry::dropped_lines(),' \
    'telemetry::dropped_lines().min(0),'
weaken end_waits_until_somebody_hears_why logs src/telemetry/logs.rs \
    'let _ = said.recv_timeout(LAST_WORDS);' \
    'let _ = said.recv();'
weaken lines_for_people_have_no_ids logs src/telemetry/logs.rs \
    'writer.write_str(&own)' \
    'writer.write_str(&own[own.len()..])'
weaken walks_are_no_hops traces src/actors/trail/mod.rs \
    'trail.hop(name, (queued, begun), Detail::None);' \
    'let _ = (trail, name, queued, begun);'
weaken slow_page_of_keys_is_not_kept traces src/rpc/trails.rs \
    'call("GetKeyRange", "get_key_range", true)' \
    'call("GetKeyRange", "get_key_range", false)'
weaken probes_find_nobody_while_the_node_starts serving src/node/start.rs \
    'let observed = match config.metrics.enabled {
            true => observe(config).await,
            false => None,
        };
        let bound' \
    'let bound' \
    src/node/start.rs \
    'shown: observed.as_ref().map(|observed| observed.address),' \
    'shown: None,' \
    src/node/start.rs \
    'let found = recover(&machine, options).await?;' \
    'let found = recover(&machine, options).await?;
        let observed = match config.metrics.enabled {
            true => observe(config).await,
            false => None,
        };'
weaken no_walk_is_slow lib src/actors/trail/traces.rs \
    'let judged = if trail.operation.is_timed { took } else { longest_walk };' \
    'let judged = if trail.operation.is_timed { took } else { Duration::ZERO };'
weaken time_in_admission_is_not_told observability src/actors/requests.rs \
    'trail::held_up();' \
    'let _ = trail::held_up;'
weaken a_stream_that_has_given_up_stalls stream_faults src/http/metrics/streams.rs \
    ' && stream.state.as_str() != "failed"' \
    ''
weaken nobody_is_told_that_the_node_stops observability src/node/shutdown.rs \
    'observed.site.stopping();' \
    'let _ = observed;'
weaken a_mailbox_is_forgotten observability src/actors/supervisor.rs \
    'self.specs.iter().map(mailbox).collect();' \
    'self.specs.iter().skip(1).map(mailbox).collect();'
weaken filters_that_said_no_are_not_counted traces src/storage/table/reader.rs \
    'looked.excluded += 1;' \
    'looked.excluded += 0;'
weaken mailboxes_refuse_without_a_word observability src/http/metrics/actors.rs \
    'of(|stats| stats.refused as f64)' \
    'of(|stats| stats.refused.min(0) as f64)'
weaken dead_members_are_not_counted gossip src/http/metrics/machine.rs \
    'counted.down,' \
    'counted.unhealthy,'
group

# What nodes know of each other.

group gossip
weaken suspects_are_not_told gossip_simulation src/actors/gossip/core.rs \
    'Task::Accuse(member, refutations) => self.accuse(member, refutations),' \
    'Task::Accuse(..) => {}'
weaken who_refuted_is_told_that_it_is_dead gossip_simulation src/actors/gossip/core.rs \
    'if !self.suspects(&member_id, incarnation) => {}' \
    'if !self.suspects(&member_id, incarnation) && self.rounds == u64::MAX => {}'
weaken a_pause_counts_as_silence_of_others gossip_simulation src/actors/gossip/agenda.rs \
    'if overdue > self.patience {' \
    'if overdue == Duration::MAX {'
weaken packets_count_twice gossip_simulation src/actors/gossip/window.rs \
    'let is_new = self.seen & bit == 0;' \
    'let is_new = true;'
weaken a_clock_that_went_back_locks_out gossip_simulation src/actors/gossip/core/admitting.rs \
    'self.say(from, Word::Superseded { by: known });' \
    ''
weaken strangers_are_believed_unasked gossip_simulation src/actors/gossip/core/admitting.rs \
    'Content::Protocol { is_call: true, .. } if !is_known => {' \
    'Content::Protocol { is_call: true, .. } if !is_known && self.rounds == u64::MAX => {'
weaken each_packet_of_an_earlier_life_is_answered gossip_simulation src/actors/gossip/core/admitting.rs \
    'self.now.saturating_sub(*at) >= self.pace.probe_interval);' \
    'self.now >= *at);'
weaken nobody_calls_at_a_seed_again gossip_simulation src/actors/gossip/core/reaching.rs \
    '(false, 0) => seeds.into_iter().choose_multiple(&mut self.chance, 1),' \
    '(false, 0) => Vec::new(),'
weaken old_records_replace_newer gossip_simulation src/actors/gossip/records.rs \
    'before.record.order() >= record.order()' \
    'before.record.order() == record.order()'
weaken any_tag_will_do gossip src/actors/gossip/wire.rs \
    'mac.verify_truncated_left(tag).map_err(|_| Refused::Forged)?;' \
    'drop((mac, tag));'
weaken a_killed_actor_forgets_its_life gossip src/actors/gossip/watch.rs \
    'let next = now_ms.max(before.saturating_add(1));' \
    'let next = now_ms.min(before.max(1));'
weaken gossip_is_left_without_a_word gossip src/actors/gossip/gossip_actor.rs \
    'core.leave(self.now());' \
    'core.tick(self.now());'
weaken names_are_looked_up_once gossip src/actors/gossip/gossip_actor.rs \
    'if state.looked.is_some_and(|at| now.saturating_sub(at) < every) {' \
    'if state.looked.is_some_and(|at| now.saturating_sub(at) < every || at <= now) {'
weaken own_address_stays_what_it_was gossip src/actors/gossip/gossip_actor.rs \
    'Some(core) => core.move_to(self.now(), first),' \
    'Some(_) => {}'
weaken no_hit_of_the_cache_is_told gossip src/actors/gossip/measuring.rs \
    'cache_hit_rate: rates.cache_hits as f32,' \
    'cache_hit_rate: 0.0,'
weaken processors_are_told_as_memory gossip src/actors/gossip/measuring.rs \
    'memory: vitals::memory().share() as f32,' \
    'memory: rates.cpu as f32,'
weaken others_are_asked_to_probe_at_half_of_the_interval lib src/actors/gossip/pace.rs \
    'probe_rtt: self.probe_timeout,' \
    'probe_rtt: self.probe_interval / 2,'
weaken news_are_passed_on_at_the_pace_of_probes lib src/actors/gossip/pace.rs \
    'periodic_gossip: every(self.gossip_interval, FAN_OUT),' \
    'periodic_gossip: every(self.probe_interval, FAN_OUT),'
weaken packets_without_room_are_not_counted gossip src/actors/gossip/gossip_actor.rs \
    'Err(Undelivered::Full(_)) => watch.counts.refuse(Refused::Full),' \
    'Err(Undelivered::Full(_)) => {}'
weaken no_error_is_told gossip src/actors/gossip/measuring.rs \
    'error_rate: rates.errors as f32,' \
    'error_rate: 0.0,'
weaken no_disk_is_told_to_be_full gossip src/actors/gossip/measuring.rs \
    'is_disk_full: health.disk_stop_reason().is_some(),' \
    'is_disk_full: false,'
weaken the_status_takes_errors_for_hits gossip src/rpc/admin/node_status.rs \
    'cache_hit_rate: share(report.cache_hit_rate),' \
    'cache_hit_rate: share(report.error_rate),'
weaken a_disk_may_be_as_full_as_its_warning_lets_it disk src/actors/strain.rs \
    'of: |numbers| numbers.disk,' \
    'of: |_| 0.0,'
weaken two_intervals_of_the_gossip_are_swapped lib src/node/gossip.rs \
    'probe_timeout: gossip.probe_timeout,' \
    'probe_timeout: gossip.probe_interval,'
weaken numbers_wait_until_there_is_room_to_spare gossip_simulation src/actors/gossip/pace.rs \
    'const COPIES_FOR_ROOM: f64 = 2.0;' \
    'const COPIES_FOR_ROOM: f64 = 0.6;'
weaken ids_of_keys_stand_in_another_order gossip src/actors/gossip/wire.rs \
    'let keys = self.all().filter(|_| !self.are_nobodys);' \
    'let keys = self.all().filter(|_| !self.are_nobodys).collect::<Vec<_>>().into_iter().rev();'
weaken key_that_everybody_knows_passes_for_one gossip src/actors/gossip/wire.rs \
    'are_nobodys: true,' \
    'are_nobodys: false,'
weaken stop_is_heard_when_the_log_is_read_back serving src/node/mod.rs \
    'tracing::info!("stopping before the node serves");
            return Ok(());' \
    'std::future::pending().await'
weaken shorter_interval_counts_later tokens src/node/reload.rs \
    'self.reloaded.notify_one();' \
    ''
weaken limits_around_the_own_group_do_not_count lib src/actors/memory_limit.rs \
    'let around = Path::new(path).ancestors();' \
    'let around = Path::new(path).ancestors().take(1);'
weaken problem_of_a_stream_names_a_key streaming src/actors/streaming/target.rs \
    'refused = Some(why);' \
    'refused = Some(format!("{key:?}: {why}"));'
weaken mark_of_a_stopped_node_is_roots drain src/cli/drain.rs \
    'give_to_owner(dir, &dir.join(drain_mark::NAME))' \
    'give_to_owner(dir, dir)'
group
