package doctor

import (
	"slices"
	"testing"
)

func TestSettingsThatLoseWorkFailAndOthersAreWarnedOf(t *testing.T) {
	want := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "2000", "message.timestamp.type": "CreateTime", "segment.bytes": "1"}
	for name, c := range map[string]struct {
		key, value string
		bad, poor  []string
	}{
		"as it should be":          {"retention.ms", "-1", nil, nil},
		"kept for a week":          {"retention.ms", "604800000", []string{"retention.ms"}, nil},
		"compacted":                {"cleanup.policy", "compact", []string{"cleanup.policy"}, nil},
		"stamped by the broker":    {"message.timestamp.type", "LogAppendTime", []string{"message.timestamp.type"}, nil},
		"takes only small ones":    {"max.message.bytes", "1000", nil, []string{"max.message.bytes"}},
		"takes larger ones":        {"max.message.bytes", "3000", nil, nil},
		"other segments":           {"segment.bytes", "2", nil, nil},
		"something it isn't about": {"min.insync.replicas", "2", nil, nil},
	} {
		now := map[string]string{}
		for k, v := range want {
			now[k] = v
		}
		now[c.key] = c.value
		bad, poor := judge(want, now)
		if !slices.Equal(bad, c.bad) || !slices.Equal(poor, c.poor) {
			t.Errorf("%s: bad %v, poor %v", name, bad, poor)
		}
	}
	if bad, poor := judge(map[string]string{"retention.ms": "86400000"}, map[string]string{"retention.ms": "-1"}); len(bad) > 0 || len(poor) != 1 {
		t.Errorf("what is kept for ever is no loss: %v, %v", bad, poor)
	}
}
