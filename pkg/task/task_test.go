package task

import "testing"

func TestAnOriginIsReadAsItIsWritten(t *testing.T) {
	for _, o := range []Origin{
		{Topic: "orders", Partition: 2, Offset: 7},
		{Topic: "orders", Partition: 2, Offset: 7, TopicID: "AbC-_d"},
		{Topic: "orders", Partition: 2, Offset: 7, TopicID: "AbC-_d", Life: 12},
	} {
		header := string(o.AppendHeader(nil))
		if got, err := ParseOrigin(header); err != nil || got != o || got.ID() != "orders/2/7" {
			t.Errorf("%s: %+v, %v", header, got, err)
		}
	}
	for _, bad := range []string{"orders/2/7/u/x", "orders/2/7/u/0", "orders/2/7/u/", "orders/2/x", "orders/2", "/2/7"} {
		if o, err := ParseOrigin(bad); err == nil {
			t.Errorf("%s is read as %+v", bad, o)
		}
	}
}
