# The weakenings: name, test, file, text, what it becomes. See run.sh.

log=src/storage/log
tables=src/storage/table

# Syncs of bytes.

weaken answer_before_the_log_is_synced crash_states src/storage/store.rs \
    'self.log.sync(self.epoch)?;' \
    ''
weaken log_batch_not_synced crash_states $log/writer.rs \
    'if let Err(source) = open.file.sync() {' \
    'if let Err(source) = std::io::Result::Ok(()) {'
weaken segment_header_not_synced_before_rename crash_states $log/writer.rs \
    '.and_then(|()| file.sync().map_err(|e| Error::io("sync", &temporary, e)))' \
    ''
weaken table_not_synced_before_rename crash_states $tables/builder.rs \
    'self.write_pending()?;
        self.sync()?;' \
    'self.write_pending()?;'
weaken manifest_edit_not_synced crash_states src/storage/manifest.rs \
    'file.sync().map_err(|e| Error::io("sync", path, e))?;' \
    ''
weaken manifest_not_synced_before_rename crash_states src/storage/manifest.rs \
    'file.sync().map_err(|e| Error::io("sync", &temporary, e))?;' \
    ''
weaken recovery_does_not_sync_the_tail_it_believes crash_states src/storage/recovery.rs \
    'fs.sync_file(segment.path())
                .map_err(|e| Error::io("sync", segment.path(), e))?;' \
    ''

# Syncs of names.

weaken new_segment_without_sync_of_its_directory crash_states $log/writer.rs \
    'made?;
        self.fs
            .sync_dir(&self.options.dir)
            .map_err(|e| Error::io("sync", &self.options.dir, e))?;' \
    'made?;'
weaken table_without_sync_of_its_directory crash_states $tables/builder.rs \
    'self.fs.sync_dir(self.dir).map_err(|e| Error::io("sync", self.dir, e))?;' \
    ''
weaken manifest_without_sync_of_its_directory crash_states src/storage/manifest.rs \
    'self.fs
            .sync_dir(&self.dir)
            .map_err(|e| Error::io("sync", &self.dir, e))?;' \
    ''
weaken directories_above_not_synced crash_states src/storage/recovery.rs \
    'dir.ancestors().skip(1)' \
    'dir.ancestors().skip(1).take(1)'

# Order, and what a recovery must forgive.

weaken segments_deleted_before_the_table_is_recorded crash_states src/storage/store.rs \
    'let flushed = self.tables.flush(oldest, &self.published)?;' \
    'self.log.delete_flushed(oldest.max_seq())?;
            let flushed = self.tables.flush(oldest, &self.published)?;'
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
    'let _ = self.fs.remove(&temporary);' \
    ''

# After a failure.

weaken log_goes_on_after_a_failed_sync crash_states $log/writer.rs \
    'self.unsure = true;
            self.latched = Some(error.to_string());' \
    'self.unsure = true;'
weaken manifest_goes_on_after_a_failed_append crash_states src/storage/manifest.rs \
    'if written.is_err() {
            self.state = before;
        }' \
    'let _ = before;'

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
