package cli

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	container *mpb.Progress
	bar       *mpb.Bar
}

func (c *command) progress(total int) *progress {
	if !c.Terminal {
		return &progress{}
	}
	p := mpb.New(mpb.WithOutput(c.Err), mpb.WithWidth(40))
	bar := p.AddBar(int64(total),
		mpb.PrependDecorators(decor.CountersNoUnit("%d / %d events")),
		mpb.AppendDecorators(decor.Percentage(), decor.AverageSpeed(0, " %.0f/s")))
	return &progress{p, bar}
}

func (p *progress) add(n int) {
	if p.bar != nil {
		p.bar.IncrBy(n)
	}
}

func (p *progress) end() {
	if p.bar != nil {
		p.bar.Abort(false) // a finished bar stays as it is
		p.container.Wait()
	}
}
