package stdio

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
)

// Shutdown asks an agent to end.
const Shutdown = `{"type":"shutdown"}` + "\n"

// AppendTask appends the message that starts a task. The error is the *event.FormatError of a record that claims a format
// and doesn't parse; dst is returned unchanged then.
func AppendTask(dst []byte, id uint64, r *kgo.Record, p event.Params) ([]byte, error) {
	start := len(dst)
	dst = append(dst, `{"id":"`...)
	dst = strconv.AppendUint(dst, id, 10)
	dst = append(dst, `","type":"task","payload":`...)
	dst, err := event.AppendPayload(dst, r, p)
	if err != nil {
		return dst[:start], err
	}
	return append(dst, '}', '\n'), nil
}

// AppendCancel appends the message that asks a task to end, for a program that has announced that it knows it. The task is
// answered as ever.
func AppendCancel(dst []byte, id uint64) []byte {
	dst = append(dst, `{"type":"cancel","id":"`...)
	dst = strconv.AppendUint(dst, id, 10)
	return append(dst, `"}`+"\n"...)
}

// AppendPing appends a ping.
func AppendPing(dst []byte, id uint64) []byte {
	dst = append(dst, `{"id":"`...)
	dst = strconv.AppendUint(dst, id, 10)
	return append(dst, `","type":"ping","payload":{}}`+"\n"...)
}
