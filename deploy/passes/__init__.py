"""Our passes over the Relax module, one per file; `deploy.pipeline` puts them in order."""
