"""The web page of ``ddfm app``. Needs the extra ``ddfm[app]``; nothing here imports Gradio before it is served."""
