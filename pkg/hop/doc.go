// Package hop moves records from one topic to others in Kafka transactions: what was consumed and what was produced
// move together or not at all. Dispatcher and worker stand on the same code.
//
// A Member is a static member of a consumer group over one topic. It reads the committed offset with its metadata when
// partitions are assigned, ends the open transactions of a dead predecessor, and knows by its lease whether it may still
// act for the group.
//
// A Pool is the process's small set of transactional producers. Commit runs one transaction: produce, offsets with
// metadata, end. Transactions of one Member must follow one another strictly; those of different members run side by
// side on different producers.
//
// How it is used:
//
//	pool, err := hop.NewPool(ctx, hop.PoolConfig{…})          // fences what an earlier life of this node left open
//	member, err := hop.NewMember(ctx, hop.MemberConfig{Handler: h, …})
//	for {
//		records, err := member.Poll(ctx, 10_000)           // err: context or ErrReplaced (a newer process has this node's name)
//		…hand them on, remember the offsets…
//		member.AllowRebalance()                              // Handler callbacks run only between this and the next Poll's return
//	}
//	g := member.Generation()                                // before the offsets are taken together
//	err = pool.Commit(ctx, hop.Tx{Member: member, Generation: g, Records: out, Offsets: map[int32]hop.Position{…}})
//
// A Position's metadata is offsets.Metadata{Node, TopicID: assignment.TopicID, Clean}.Encode(offset) where work is settled in
// order; Clean belongs into the last commit before a partition is handed over (Revoked, Close, Leave) and nowhere else.
//
// Commit with no Records commits plainly, fenced by the group's generation. A *RecordsError names the records that the
// broker refused; nothing was committed, and the caller decides what becomes of each.
//
// Sources: KIP-98, KIP-447 (offsets fenced by group generation), KIP-890 (transactions v2), KIP-345 (static members).
package hop
