// Package offsets tracks which offsets of a partition are settled when work is completed out of order, and writes that
// into the metadata of a commit, so that the next owner skips what is settled.
//
// The committed offset L is the lowest unsettled one. The metadata holds what the offset can't say: who wrote it, how
// far work may have started, which tasks are on a later attempt than their record says, and what is settled beyond L.
//
// # Metadata, versions 1 to 5
//
// The string is unpadded base64url (RFC 4648 §5) of these bytes; varints are those of encoding/binary:
//
//	version        1 byte, 1 to 5
//	flags          1 byte, bit 0: clean (the writer handed over or fell idle: nothing below the marks is in doubt),
//	                 bit 1: strict (no task behind an unsettled one of its key has begun),
//	                 bit 2: version 3 only: entries have the time of their first failure,
//	                 bit 3: version 3 only: outages are there
//	topic id       16 bytes, the UUID of the topic that the offsets belong to
//	node           uvarint length, then the writer's node name, at most MaxNode bytes
//	reserved       uvarint: offsets below L + reserved may have been started
//	suspects       uvarint: unsettled offsets below L + suspects may have begun under an owner that died
//	passed         from version 2 on: uvarint since, Unix milliseconds, and uvarint count of the records passed on since then; of a
//	               dead-letter topic an order, and how many it has moved
//	outages        version 3 only, with bit 3 of the flags: uvarint count, at most MaxOutages, then for each, in ascending order:
//	                 uvarint since, Unix milliseconds; uvarint 0 while it lasts, else its length in milliseconds + 1
//	passed over    version 5 only: uvarint count of the records passed over since then
//	entries        uvarint count, at most MaxEntries, then for each, in ascending order:
//	                 uvarint offset - (previous entry's offset, or L)
//	                 uvarint attempt << 1 | alone
//	                 uvarint not before, Unix milliseconds, 0 for none: the attempt has ended, the next one waits until then
//	                 version 3 only: uvarint 0 (the task's record tells the rest), or (retries used up << 2 | timeouts) + 1,
//	                 and then, with bit 2 of the flags, uvarint time of the first failure, Unix milliseconds, 0 for unknown
//	settled        the rest; empty, or one byte 'r' and runs, or 'b' and a bitmap
//	                 runs: pairs of uvarint (gap since the end of the last run, or since L; length)
//	                 bitmap: bit i of byte i/8 stands for L + i
//
// Version 2 is written where records are counted, by dispatchers; workers write version 1, and version 3 while a task waits
// for its retry in place (ordering strict) and once the agent has had an outage: retries that were burnt in it are given
// back by whoever gets the task then. A reader of version 1 passes over the flags that it doesn't know.
//
// Version 4 is version 2 for dead-letter topics, of which people redrive and purge what they like: settled has no window
// there and is one byte 'R' and runs as above, or 'P' and the same deflated (RFC 1951), or 'B' and a deflated bitmap of
// little-endian 64-bit words, whichever is shortest. It can become too long for Kafka; who writes it asks Fits before.
//
// Version 5 is version 2 of a partition of which dispatchers have passed records over.
//
// Nothing is tracked at or beyond L + Window, so that the string stays below MaxBytes, which is Kafka's default limit
// (offset.metadata.max.bytes). Unreadable metadata is an error of Decode; callers go on as if it were empty and say so.
package offsets
