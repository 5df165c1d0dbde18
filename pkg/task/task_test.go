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

func TestWhoNamesATaskMeansIt(t *testing.T) {
	for _, c := range []struct {
		name, by, task string
		want           bool
	}{
		{"by its id", "orders/2/7", "orders/2/7", true},
		{"by its id alone", "orders/2/7", "orders/2/7/u/3", true},
		{"another topic", "invoices/2/7", "orders/2/7", false},
		{"another partition", "orders/1/7", "orders/2/7", false},
		{"another offset", "orders/2/8", "orders/2/7", false},
		{"with the topic's UUID", "orders/2/7/u", "orders/2/7/u", true},
		{"of a topic that was made again", "orders/2/7/old", "orders/2/7/u", false},
		{"a task that doesn't know its topic's UUID", "orders/2/7/u/3", "orders/2/7", true},
		{"whatever its life", "orders/2/7/u", "orders/2/7/u/3", true},
		{"in its life", "orders/2/7/u/3", "orders/2/7/u/3", true},
		{"in a later life", "orders/2/7/u/4", "orders/2/7/u/3", false},
		{"in a later life than the first", "orders/2/7/u/4", "orders/2/7/u", false},
		{"in its life, of a topic that was made again", "orders/2/7/old/3", "orders/2/7/u/3", false},
	} {
		by, err := ParseOrigin(c.by)
		of, bad := ParseOrigin(c.task)
		if err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if got := by.Means(of); got != c.want {
			t.Errorf("%s: %s means %s: %t", c.name, c.by, c.task, got)
		}
	}
}
