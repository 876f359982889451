package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// spent is what a part of the machine has used.
type spent struct {
	cpu, wall float64 // seconds
}

// command runs footfall to its end and tells what it used.
func (b *bench) command(ctx context.Context, args ...string) (out string, used spent, err error) {
	c := exec.CommandContext(ctx, b.binary, args...)
	began := time.Now()
	answer, err := c.Output()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		err = fmt.Errorf("footfall %s: %w\n%s", args[0], err, ee.Stderr)
	}
	if err != nil {
		return "", spent{}, err
	}
	used.wall = time.Since(began).Seconds()
	used.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	return string(answer), used, nil
}

// brokerCPU is the CPU seconds of the broker so far, 0 where nobody can tell.
func (b *bench) brokerCPU(ctx context.Context) float64 {
	if b.broker == "" || b.data == "" {
		return 0
	}
	out, err := exec.CommandContext(ctx, b.broker, "cpu", b.data).Output()
	if err != nil {
		return 0
	}
	cpu, _ := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return cpu
}
