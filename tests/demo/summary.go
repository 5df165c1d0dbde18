package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// writeTable prints the closing table. A figure that isn't the expected one is followed by what was expected.
func writeTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "agent\treceived\tcompleted\tretried\tdead-lettered\tp50\tp99\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.agent.ref(),
			cell(r.got.Received, r.want.Received), cell(r.got.Completed, r.want.Completed),
			cell(r.got.Retried, r.want.Retried), cell(r.got.DeadLettered, r.want.DeadLettered),
			millis(percentile(r.latencies, 50)), millis(percentile(r.latencies, 99)))
	}
	return t.Flush()
}

func cell(got, want int) string {
	if got == want {
		return fmt.Sprint(got)
	}
	return fmt.Sprintf("%d (expected %d)", got, want)
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
