//go:build tools

// Package critest pins the conformance suite, which is a test package, so that its imports are
// named here. The NRI plugin of haled's own tests is beside it: both want the same NRI.
package critest

import (
	_ "sigs.k8s.io/cri-tools/cmd/critest"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/common"
	_ "sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
