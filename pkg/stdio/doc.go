// Package stdio speaks the protocol between a supervisor and an agent's process: one JSON object a line, in UTF-8, on the
// agent's standard input and output.
//
//	→ {"id":"7","type":"task","payload":{…}}   ← {"id":"7","status":"ok","result":{…}}
//	                                           ← {"id":"7","status":"error","error":"…"[,"error_class","error_type","traceback","retry_after"]}
//	→ {"id":"8","type":"ping","payload":{}}    ← {"id":"8","status":"ok","result":{"health":{…}}}
//	→ {"type":"shutdown"}                      ← {"id":null,"status":"ok","result":{…}}, then exit 0
//
// Answers come in any order and are matched by id; many tasks may be in flight. Nothing announces that an agent is ready:
// it is when it has answered its first ping.
//
// # What an agent may get wrong
//
// An agent is somebody else's program, and a line of it must never end the reader:
//
//   - A line that is no answer is the agent's output and belongs into its log.
//   - Output without a line end sticks to the front of the next answer: the answer is looked for behind it.
//   - A line longer than the limit is skipped up to its end; its beginning tells whose answer it was.
//   - NaN, Infinity and -Infinity, which JSON doesn't know and Python writes all the same, become null: the agent has done
//     its work, and running it again would give the same.
//   - Bytes that aren't UTF-8 become U+FFFD.
//   - A result that isn't JSON, an answer without a status, an unknown status: an error of that task.
package stdio
