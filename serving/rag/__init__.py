"""The RAG endpoint: an OpenAI-compatible server in front of a model, which retrieves where its policy says.

A request goes through limits, request check, image check, policy, search, gate, context, model, and answer.
What was decided is said in the answer's `m4rag` field and in `x-m4rag-*` headers.
"""
