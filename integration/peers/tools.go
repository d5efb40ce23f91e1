//go:build tools

// Package peers pins the containerd that haled is measured beside (`cargo bench --bench peers`).
// Nothing is built from this file.
package peers

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
